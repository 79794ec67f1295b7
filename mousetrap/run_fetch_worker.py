"""The first worker: fetches data for each job, and sends it to the next queue.

Prototyped in ``notebooks/03_worker.ipynb``.
"""

from __future__ import annotations

from mousetrap.fetch_data import Place, fetch_data
from mousetrap.flows.stage import stage
from mousetrap.model.message import current_message
from mousetrap.start_fetch import FetchJob

LISTEN_QUEUE = "start_fetch"
PUSH_QUEUE = "data_processing"


@stage(reads=LISTEN_QUEUE, writes=PUSH_QUEUE)
def fetch(job: FetchJob = FetchJob()) -> list[Place]:  # noqa: B008 -- frozen, so safe to share
    """Fetch the places that *job* asks for; outside a worker this is the first attempt."""
    message = current_message.get(None)
    return fetch_data(
        job.seed,
        places=job.places,
        latency=job.latency,
        failure_rate=job.failure_rate,
        attempt=message.attempt if message else 1,
    )


def run_fetch_worker() -> None:
    """Consume ``start_fetch`` until SIGINT or SIGTERM; blocks until then, as in the tutorial."""
    fetch.run()
