"""The trigger: sends a job to the queue ``start_fetch``, as the tutorial's API does.

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
    """What to fetch: ten random places by default, which is also what an empty body means.

    `latency` (seconds) and `failure_rate` (0..1) simulate a slow and unreliable external API.
    """

    seed: int | None = None
    places: int = 10
    latency: float = 0.0
    failure_rate: float = 0.0


def start_fetch(job: FetchJob | None = None, settings: Settings | None = None) -> str:
    """Send *job* to the queue ``start_fetch``, wait for the confirm and return the job's id.

    Raises:
        BrokerUnreachable, AccessRefused: the text names the variable to check.
        PublishError: the broker did not confirm the job.
    """
    settings = settings or Settings.from_environment()
    with Publisher(settings, "start_fetch") as publisher:
        publisher.declare([settings.topology.work_queue(QUEUES[0])])
        receipt = publisher.publish(Message(job), QUEUES[0])
        return receipt.wait(settings.confirm_timeout).message.id
