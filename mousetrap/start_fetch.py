"""The trigger: puts a fetch job on the queue, as the tutorial's API would.

Prototyped in ``notebooks/00_start_here.ipynb``.
"""

from __future__ import annotations

from dataclasses import dataclass

from mousetrap.amqp.publisher import Publisher
from mousetrap.job_queue import QUEUES
from mousetrap.model.message import Message
from mousetrap.settings import Settings


@dataclass(frozen=True)
class FetchJob:
    """What to fetch; the default, which an empty body means, is ten random places.

    `latency` (seconds) and `failure_rate` (0..1) simulate a slow and unreliable external API.
    """

    seed: int | None = None
    places: int = 10
    latency: float = 0.0
    failure_rate: float = 0.0


def start_fetch(job: FetchJob | None = None, settings: Settings | None = None) -> str:
    """Send *job* to the queue ``start_fetch``, wait for the confirm and return the job's id.

    Raises:
        BrokerUnreachable, AccessRefused: with the variable to check.
        PublishError: the job did not verifiably arrive.
    """
    settings = settings or Settings.from_environment()
    with Publisher(settings, "start_fetch") as publisher:
        publisher.declare([settings.topology.work_queue(QUEUES[0])])
        receipt = publisher.publish(Message(job), QUEUES[0])
        return receipt.wait(settings.confirm_timeout).message.id
