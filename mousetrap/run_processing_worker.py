"""The second worker: summarises the places that the first one fetched.

Prototyped in ``notebooks/04_stages.ipynb``.
"""

from __future__ import annotations

from mousetrap.errors import Reject
from mousetrap.fetch_data import Place
from mousetrap.flows.stage import stage
from mousetrap.process_data import Summary, process_data
from mousetrap.sink.results_sink import with_results_sink

LISTEN_QUEUE = "data_processing"
PUSH_QUEUE = "results"


@stage(reads=LISTEN_QUEUE, writes=PUSH_QUEUE)
def process(places: list[Place]) -> Summary:
    """Return the most northerly place and the centroid of *places*.

    Raises:
        Reject: the places cannot be summarised, and a retry would not change that.
    """
    try:
        return process_data(places)
    except ValueError as error:
        raise Reject(str(error)) from error


def run_processing_worker() -> None:
    """Consume ``data_processing`` until SIGINT or SIGTERM; blocks until then.

    If the variable ``RESULTS_SINK`` names a sink, each result is stored there exactly once.
    """
    with_results_sink(process).run()
