"""Stores the results of a pipeline: ``RESULTS_SINK=results.db mousetrap work process``."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Iterator
from typing import Any

from mousetrap.errors import FailedItems
from mousetrap.flows.stage import Stage
from mousetrap.model.batch import current_batch
from mousetrap.model.one_or_many import is_many
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
    stored: Callable[[Any], Any] = _StoredResult(stage, sink)
    if stage.batch is not None:
        stored = _StoredBatch(stage, sink)

    @functools.wraps(function)
    def store(*args: Any, **kwargs: Any) -> Any:
        try:
            result = function(*args, **kwargs)
            return stored_later(result) if must_be_awaited(result) else stored(result)
        except FailedItems as failed:
            raise FailedItems(failed.errors, stored(failed)) from failed

    @functools.wraps(function)
    async def store_async(*args: Any, **kwargs: Any) -> Any:
        return await stored_later(function(*args, **kwargs))

    async def stored_later(result: Any) -> Any:
        try:
            return stored(await finished(result))
        except FailedItems as failed:
            raise FailedItems(failed.errors, stored(failed)) from failed

    return stage.replace(function=store_async if stage.handler.is_async else store)


class _StoredResult:
    """Stores what *stage* returned for one message, and returns what is to be sent."""

    def __init__(self, stage: Stage[Any, Any], sink: Sink) -> None:
        self._stage = stage
        self._sink = sink

    def __call__(self, result: Any) -> Any:
        if isinstance(result, FailedItems):  # of a handler without batches: an error as any other
            raise result
        kept, data = self._split(result)
        for each in data:
            self._sink.store(each)
        return kept

    def _split(self, result: Any) -> tuple[Any, list[Any]]:
        """Return *result* to be sent, and what is to be stored for it: one value or none."""
        stage = self._stage
        if not isinstance(result, Iterator):
            return result, [_data(result)] if _is_for_results(result, stage) else []
        values = list(result)
        return iter(values), [[_data(each) for each in values if _is_for_results(each, stage)]]


class _StoredBatch(_StoredResult):
    """Stores what *stage* returned for a batch, each element for its message."""

    def __call__(self, result: Any) -> Any:
        failed: Collection[int] = ()
        if isinstance(result, FailedItems):
            result, failed = result.results, result.errors
        messages = current_batch()
        if messages is None or not (result is None or is_many(result)):
            return result  # called as a function, or the worker refuses it
        elements = [None] * len(messages) if result is None else list(result)
        if len(elements) != len(messages):
            return elements
        split = [
            (each, []) if position in failed else self._split(each)
            for position, each in enumerate(elements)
        ]
        rows = [(data, m) for m, (_, data) in zip(messages, split, strict=True) if data]
        if rows:
            self._sink.store_each([data for [data], _ in rows], [message for _, message in rows])
        return [kept for kept, _ in split]


def _is_for_results(value: Any, stage: Stage[Any, Any]) -> bool:
    if isinstance(value, Send) and value.to is not None:
        return stage.targets.address(value, stage.name) == RESULTS_QUEUE
    return RESULTS_QUEUE in stage.targets.writes


def _data(value: Any) -> Any:
    return value.value if isinstance(value, Send) else value
