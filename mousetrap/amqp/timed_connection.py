"""A pika blocking connection whose waits end, however silent the broker is.

pika's `BlockingConnection` waits for an answer until its heartbeats fail, which takes two minutes
with the usual heartbeat, and while it connects up to a time-out for each address of the host.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pika
from pika.adapters.select_connection import SelectConnection
from pika.adapters.utils.connection_workflow import (
    AMQPConnectorException,
    AMQPConnectorStackTimeout,
)

from mousetrap.runtime import clock, postponed_interrupts

# Seconds after the deadline of a connection until it is aborted: its own time-out, which often is
# the same, comes first.
ABORT_DELAY = 0.25
TICK = 0.1  # seconds between two checks of the time limits, while a call waits


class AnswerTimeout(pika.exceptions.AMQPConnectionError):
    """The broker did not answer in time, so the connection was dropped."""


class TimedConnection(pika.BlockingConnection):
    """A blocking connection that is dropped when a wait takes too long.

    It is opened until *deadline* (monotonic; None: no limit). A request that the broker must answer
    has *answer_timeout* seconds. `process_data_events` and what pika builds on it
    (`start_consuming`, `consume`, `sleep`) wait for messages and not for an answer, so they have no
    such limit; `limited` limits all. A wait also ends when a postponed signal is overdue. When the
    connection is dropped, the waiting call raises `AnswerTimeout`.

    Threads: as pika's, one at a time.
    """

    def __init__(
        self,
        parameters: Sequence[pika.ConnectionParameters],
        answer_timeout: float,
        deadline: float | None = None,
    ) -> None:
        self.answer_timeout = answer_timeout
        self.deadline: float | None = None
        self._wait_end: float | None = None  # of the present wait; None: nothing waits
        self._wait_seconds = 0.0  # how long that wait may be, for the error
        self._is_ticking = False
        self._waits_for_messages = False  # the next wait is for messages, not for an answer
        connector: Any = _Connector(deadline)
        try:
            super().__init__(parameters, _impl_class=connector)
        except AssertionError as error:  # pika's: an attempt timed out in the moment of its abort
            if connector.failure is None:
                raise
            raise connector.failure from error

    @property
    def product(self) -> str:
        """What the broker calls itself: "RabbitMQ"."""
        return str((self._impl.server_properties or {}).get("product", ""))

    @contextmanager
    def limited(self, deadline: float | None) -> Iterator[None]:
        """Let all waits inside the block end at *deadline*, or at the present one if it is earlier.

        None changes nothing.
        """
        before = self.deadline
        if deadline is not None:
            self.deadline = min(deadline, math.inf if before is None else before)
        try:
            yield
        finally:
            self.deadline = before

    @contextmanager
    def waiting_for_messages(self) -> Iterator[None]:
        """Let the first wait inside the block last until the deadline, as it waits for messages."""
        self._waits_for_messages = True
        try:
            yield
        finally:
            self._waits_for_messages = False

    def process_data_events(self, time_limit: float | None = 0) -> None:
        """Do what pika's method does; only the deadline limits it, beside *time_limit*."""
        with self.waiting_for_messages():
            super().process_data_events(time_limit)

    def _flush_output(self, *waiters: Callable[[], bool]) -> None:
        """Wait as pika does: every blocking call of pika waits here."""
        now = clock.monotonic()
        limit = math.inf if self._waits_for_messages else now + self.answer_timeout
        self._waits_for_messages = False
        self._wait_end = min(limit, math.inf if self.deadline is None else self.deadline)
        self._wait_seconds = max(0.0, self._wait_end - now)
        if not self._is_ticking and not self.is_closed:
            self._is_ticking = True
            self._call_later(TICK)
        try:
            super()._flush_output(*waiters)
        finally:
            self._wait_end = None

    def _call_later(self, delay: float) -> None:
        self._impl._adapter_call_later(delay, self._tick)

    def _tick(self) -> None:
        """Drop the connection if the present wait has lasted too long (called by pika's loop)."""
        self._is_ticking = False
        if self._wait_end is None or self._impl.is_closed:
            return
        left = self._wait_end - clock.monotonic()
        if left > 0 and not postponed_interrupts.is_overdue():
            self._is_ticking = True
            self._call_later(min(TICK, left))
            return
        why = "interrupted" if left > 0 else f"no answer within {self._wait_seconds:.3g} s"
        self._impl._terminate_stream(AnswerTimeout(why))


class _Connector:
    """Connects as `SelectConnection` does, but gives up at *deadline* (monotonic)."""

    def __init__(self, deadline: float | None) -> None:
        self._deadline = math.inf if deadline is None else deadline + ABORT_DELAY
        self.failure: Exception | None = None  # why it gave up

    def create_connection(
        self, configs: Any, on_done: Callable[[Any], None], custom_ioloop: Any
    ) -> Any:
        """Connect, and call *on_done* with the connection or with an exception."""
        is_done = False

        def done(result: Any) -> None:
            nonlocal is_done
            is_done = True
            on_done(self.failure if self.failure and isinstance(result, Exception) else result)

        def tick() -> None:
            if is_done:
                return
            late = clock.monotonic() >= self._deadline
            if not late and not postponed_interrupts.is_overdue():
                custom_ioloop.call_later(TICK, tick)
                return
            kind = AMQPConnectorStackTimeout if late else AnswerTimeout
            self.failure = kind("late" if late else "interrupted")
            try:
                workflow.abort()
            except AMQPConnectorException:  # an attempt is just ending by itself: wait for that
                custom_ioloop.call_later(TICK, tick)

        workflow = SelectConnection.create_connection(configs, done, custom_ioloop)
        custom_ioloop.call_later(TICK, tick)
        return workflow
