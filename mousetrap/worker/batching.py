"""Batches in a worker: one call of the handler for several messages, each with its own outcome.

A plain worker handles each delivery by itself. Here an executor collects deliveries, and one call
of the handler gets several; before and after the call each message is on its own again, with an
attempt, outputs and an outcome. After an error of the whole call, each message is handled alone, by
the same thread and as the same attempt: an error of one message is never that of its neighbours.
Messages that wait for a batch to fill are not begun, and those that are handled alone (from the
quarantine queue) never wait for others. Prototyped in ``notebooks/bench_batch.ipynb``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, TypeAlias

from mousetrap.amqp.delivery import Delivery
from mousetrap.display.safe_text import class_name, safe
from mousetrap.model import poison_messages
from mousetrap.model.headers import LOSSES, TIMEOUTS
from mousetrap.runtime import clock
from mousetrap.worker.attempt import Attempt, AttemptHandling, HandlerCall
from mousetrap.worker.batch_executor import BatchExecutor, Work
from mousetrap.worker.batch_handler import BatchHandler, BatchScope, Element
from mousetrap.worker.executors import AsyncExecutor, Executor, OnCrash, ThreadExecutor
from mousetrap.worker.handler import Handler
from mousetrap.worker.handling import current_task
from mousetrap.worker.join_routes import addressed
from mousetrap.worker.processor import Processor

log = logging.getLogger("mousetrap.worker.worker")

Entry: TypeAlias = tuple[Attempt, Any]
"""One message in a call: its attempt, and what the list has for it."""


class BatchCall:
    """What comes before and after one call of the handler with *entries*, which *work* had.

    A context manager as `HandlerCall`; the caller assigns `elements` inside. Hooks are called with
    each message, with the first one last: what the handler prints is kept with that one.
    """

    __slots__ = ("_end", "_entered", "_scope", "_task", "_work", "attempts", "elements", "handler",
                 "items")  # fmt: skip

    def __init__(
        self,
        end: BatchProcessor,
        work: Work,
        entries: Sequence[Entry],
        task: asyncio.Task[Any] | None,
    ) -> None:
        self.attempts = [attempt for attempt, _ in entries]
        self.items = [item for _, item in entries]
        self.elements: list[Element] = []
        handler = self.attempts[0].handler
        assert isinstance(handler, BatchHandler)
        self.handler = handler
        self._end = end
        self._work = work
        self._task = task
        messages = [each.message for each in self.attempts]
        self._scope = BatchScope(messages, handler.name, end.settings)
        self._entered: list[AbstractContextManager[object]] = []

    def __enter__(self) -> BatchCall:
        hooks = self._end.hooks
        for each in self.attempts if hooks.started else ():
            hooks.call(hooks.started, each.message)
        for each in reversed(self.attempts) if hooks.handling else ():
            self._entered += hooks.enter(each.message)
        handling = self._scope.__enter__()
        if self._task is not None:
            handling.follow_task()
        now = clock.monotonic()  # one time for all: the time limit ends all of them together
        for each in self.attempts:
            each.delivery.handling_started = now
        self._end.executor.begin_call(self._work, [each.delivery for each in self.attempts])
        return self

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> bool:
        if self._task is not None and current_task() is not self._task:
            return not isinstance(error, GeneratorExit)  # as in `HandlerCall`
        self._end.executor.end_call(self._work)
        try:
            if error is not None:
                self._fail(error)
            else:
                for attempt, element in zip(self.attempts, self.elements, strict=True):
                    self._publish(attempt, element)
        finally:
            self._scope.__exit__()
            self._end.hooks.leave(self._entered)
            for each in self.attempts:
                self._end.attempts.running.pop(each.delivery, None)
        return True

    def _publish(self, attempt: Attempt, element: Element) -> None:
        """Publish what came of one message, or have it fail alone."""
        message, end = attempt.message, self._end
        handling = AttemptHandling(attempt, end.settings, end.targets)
        try:
            outputs = self.handler.outputs_of(element, message, handling)
            outputs, sent = addressed(handling, self.handler.carry, outputs, handling.end())
        except BaseException as error:  # noqa: BLE001 -- the handler's own, or of a value to send
            end.handle_failure(attempt, error)
        else:
            end.publish_outputs(attempt, outputs, sent)

    def _fail(self, error: BaseException) -> None:
        """Have the one message fail; several go on, each alone."""
        if len(self.attempts) == 1:
            self._end.handle_failure(self.attempts[0], error)
        elif left := [each for each in self.attempts if not each.has_ended]:
            # No error text here: it may quote a body.
            log.warning("%s: a call of %s with %d messages failed (%s): each is handled alone now",
                        safe(self._end.queue_name), safe(self.handler.name), len(self.attempts),
                        class_name(error))  # fmt: skip
            self._end.executor.go_on_alone(self._work, left)


class BatchProcessor(Processor):
    """Handles deliveries in batches; the handler is a `BatchHandler`. See `Processor`."""

    executor: BatchExecutor

    @property
    def queue_name(self) -> str:
        """The plain name of the queue that it reads."""
        return self._queue.name

    def _new_executor(self, handler: Handler, size: int, on_crash: OnCrash) -> BatchExecutor:
        assert handler.batch is not None
        inner: Executor[Work] = (
            AsyncExecutor(self._handle_work_async, size, handler.name, on_crash)
            if handler.is_async
            else ThreadExecutor(self._handle_work, size, handler.name, on_crash)
        )
        later = self._consumer.connection.call_later
        return BatchExecutor(inner, handler.batch, later, self._is_handled_alone)

    def _is_handled_alone(self, delivery: Delivery) -> bool:
        headers = delivery.properties.headers
        if not headers or not (LOSSES in headers or TIMEOUTS in headers):
            return False
        return poison_messages.is_handled_alone(delivery.message(self._queue.name))

    # ---- on the executor's threads -------------------------------------------------------------

    def _handle_work(self, work: Work) -> None:
        self.executor.begin(work)
        while (call := self._next_call(work)) is not None:
            with call:
                call.elements = call.handler.call_items(call.items)

    async def _handle_work_async(self, work: Work) -> None:
        self.executor.begin(work)
        while (call := self._next_call(work, asyncio.current_task())) is not None:
            with call:
                call.elements = await call.handler.call_items_async(call.items)
            for attempt in call.attempts:
                if attempt.unpublished is not None:
                    await self._publish_when_there_is_room(attempt, *attempt.unpublished)

    def _next_call(self, work: Work, task: asyncio.Task[Any] | None = None) -> BatchCall | None:
        """Begin what is next in *work*; return None if there is nothing left."""
        while (attempt := work.next_alone()) is not None:
            if (entry := self._entry_alone(attempt, task)) is not None:
                return BatchCall(self, work, [entry], task)
        entries: list[Entry] = []
        size = 0
        batch = self.executor.batch
        while len(entries) < batch.size and size < batch.max_bytes:
            if (delivery := work.next_waiting()) is None:
                break
            if (begun := self._begin(delivery)) is None:
                continue
            if entries:
                begun.handler = entries[0][0].handler  # one call, even if it was swapped just now
            if (item := self._item(begun, task)) is not None:
                entries.append((begun, item[0]))
                size += item[1]
        return BatchCall(self, work, entries, task) if entries else None

    def _entry_alone(self, attempt: Attempt, task: asyncio.Task[Any] | None) -> Entry | None:
        """Return *attempt*, which goes on alone from now, with its data as they arrived."""
        if attempt.has_ended:
            return None
        if not self._consumer.is_current(attempt.delivery):
            self._drop(attempt.delivery)  # the broker delivers it again
            return None
        attempt.begun, attempt.started = clock.steady_time(), clock.monotonic()
        self.attempts.running[attempt.delivery] = attempt
        item = self._item(attempt, task)
        return None if item is None else (attempt, item[0])

    def _item(self, attempt: Attempt, task: asyncio.Task[Any] | None) -> tuple[Any, int] | None:
        """Return the data of *attempt* and its bytes; None if its message has failed for them."""
        handler = attempt.handler
        assert isinstance(handler, BatchHandler)
        try:
            return handler.item(attempt.message)
        except BaseException:  # a user's type may raise anything
            with HandlerCall(attempt, self, task):
                raise
        self.attempts.running.pop(attempt.delivery, None)
        return None

    # ---- on the I/O thread ---------------------------------------------------------------------

    def _time_out(self, delivery: Delivery) -> bool:
        attempt = self.attempts.running.get(delivery)
        together = self.executor.together(delivery)
        if attempt is None or attempt.has_ended or len(together) < 2:
            return super()._time_out(delivery)
        for each in together:  # all before the call is abandoned, and goes on with what is left
            attempt = self.attempts.running.get(each)
            if attempt is not None and self._end(attempt):
                self.moves.move(attempt, poison_messages.after_batch_timeout)
        return True


def processor_class(handler: Handler) -> type[Processor]:
    """Return the class of processors that can call *handler*."""
    return Processor if handler.batch is None else BatchProcessor
