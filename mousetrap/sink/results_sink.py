"""A pipeline that stores its results: ``RESULTS_SINK=results.db mousetrap work process``."""

from __future__ import annotations

import functools
import inspect
import os
from typing import Any

from mousetrap.flows.stage import Stage
from mousetrap.sink import Sink

VARIABLE = "RESULTS_SINK"  # in the environment, because a URL has a password in it
QUEUE = "results"  # of all that is sent, what ends here is a result


def with_results_sink(stage: Stage[Any, Any]) -> Stage[Any, Any]:
    """Return *stage*, which also stores what it sends to `results`, once for each message.

    In the sink that ``RESULTS_SINK`` names; without it, and for stages that write elsewhere, the
    stage as it is. What was stored the first time stays; the message is acked after that.

    Raises:
        SinkError: what it names cannot be a sink.
    """
    place = os.environ.get(VARIABLE)
    if not place or stage.writes != QUEUE:
        return stage
    sink = Sink(place)
    function: Any = stage.function

    def kept(result: Any) -> Any:
        if not inspect.isgenerator(result):
            sink.store(result)
            return result
        results = list(result)
        sink.store(results)
        return (each for each in results)

    @functools.wraps(function)
    def store(*args: Any, **kwargs: Any) -> Any:
        return kept(function(*args, **kwargs))

    @functools.wraps(function)
    async def store_async(*args: Any, **kwargs: Any) -> Any:
        return kept(await function(*args, **kwargs))

    return Stage(
        store_async if stage.handler.is_async else store,
        stage.queue, stage.writes, stage.concurrency, stage.prefetch,
    )  # fmt: skip
