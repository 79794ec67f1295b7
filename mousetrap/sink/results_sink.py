"""Stores the results of a pipeline: ``RESULTS_SINK=results.db mousetrap work process``."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from typing import Any

from mousetrap.flows.stage import Stage
from mousetrap.model.targets import Send
from mousetrap.sink import Sink
from mousetrap.worker.handler import finished, must_be_awaited

SINK_VARIABLE = "RESULTS_SINK"  # an environment variable, because a URL contains a password
RESULTS_QUEUE = "results"  # messages sent to this queue are results


def with_results_sink(stage: Stage[Any, Any]) -> Stage[Any, Any]:
    """Return a stage like *stage* that also stores what it sends to `results`, once per message.

    The environment variable ``RESULTS_SINK`` names the sink. Without it, and for a stage that
    does not send to that queue, return *stage* itself. The worker acks a message after its result
    is stored; the result of a second delivery is not stored.

    Raises:
        SinkError: ``RESULTS_SINK`` does not name a usable sink.
    """
    place = os.environ.get(SINK_VARIABLE)
    if not place or RESULTS_QUEUE not in stage.targets.queues:
        return stage
    sink = Sink(place)
    function: Any = stage.function

    def stored(result: Any) -> Any:
        if not isinstance(result, Iterator):
            if _is_for_results(result, stage):
                sink.store(_data(result))
            return result
        values = list(result)
        sink.store([_data(each) for each in values if _is_for_results(each, stage)])
        return (each for each in values)

    @functools.wraps(function)
    def store(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        return stored_later(result) if must_be_awaited(result) else stored(result)

    @functools.wraps(function)
    async def store_async(*args: Any, **kwargs: Any) -> Any:
        return await stored_later(function(*args, **kwargs))

    async def stored_later(result: Any) -> Any:
        return stored(await finished(result))

    return stage.replace(function=store_async if stage.handler.is_async else store)


def _is_for_results(value: Any, stage: Stage[Any, Any]) -> bool:
    if isinstance(value, Send) and value.to is not None:
        return stage.targets.address(value, stage.name) == RESULTS_QUEUE
    return RESULTS_QUEUE in stage.targets.writes


def _data(value: Any) -> Any:
    return value.value if isinstance(value, Send) else value
