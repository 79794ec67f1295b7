"""One attempt to handle one message: when it began, the call of the handler, and its outcome."""

from __future__ import annotations

import asyncio
import functools
import os
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol

from mousetrap.amqp.delivery import Delivery
from mousetrap.errors import Reject
from mousetrap.model.message import Message, current_message
from mousetrap.model.outcome import Outcome, OutcomeKind, Output
from mousetrap.model.targets import OutputTargets, SentMessage
from mousetrap.runtime import clock
from mousetrap.settings import Settings
from mousetrap.worker.handler import Handler
from mousetrap.worker.handling import Handling, current_handling, current_task
from mousetrap.worker.hooks import Hooks
from mousetrap.worker.join_routes import addressed
from mousetrap.worker.publications import OnOutcome, Publication

# In the log for each failed attempt: queue, message, attempt, kind of the error, and where it goes.
FAILED_LINE = "%s: message %s, attempt %d: %s -> %s"


class Attempt:
    """An attempt to handle *message* by *handler*, which begins when this object is made."""

    __slots__ = (
        "begun", "delivery", "handler", "has_ended", "is_given_to_publisher", "message", "returned",
        "started", "unpublished",
    )  # fmt: skip

    returned: Sequence[object]

    def __init__(self, delivery: Delivery, message: Message, handler: Handler) -> None:
        self.delivery = delivery
        self.message = message
        self.handler = handler  # to the end of the attempt, whatever `Worker.swap` does meanwhile
        self.begun = clock.steady_time()  # seconds since 1970, to be published
        self.started = clock.monotonic()  # to measure the duration by
        # The first of these ends the attempt, and the others have no effect: the handler returns or
        # raises, the time limit is over, the message is given back.
        self.has_ended = False
        self.is_given_to_publisher = False  # what came of it
        # `returned` has what the handler returned, if its outputs have targets; else it is not set.
        # What came of it, and the callback, while a coroutine has to wait for room to publish it.
        self.unpublished: tuple[Sequence[Publication], OnOutcome] | None = None

    def outcome(
        self,
        kind: OutcomeKind,
        queue: str,
        outputs: tuple[Output, ...] = (),
        reason: str = "",
        traceback: str = "",
        delay: float = 0.0,
        body: bytes | None = None,
    ) -> Outcome:
        """Return the outcome of this attempt, which ends now; arguments are `Outcome`'s fields."""
        message = self.message
        return Outcome(  # by position: made for every message, and names would double its cost
            message.id,
            kind,
            self.handler.name,
            queue,
            worker_name(os.getpid()),
            self.begun,
            clock.monotonic() - self.started,
            message.attempt,
            "" if message.job == message.id else message.job,
            message.parent,
            outputs,
            reason,
            traceback,
            delay,
            body,
        )


class AttemptEnd(Protocol):
    """Publishes what a handler returned, or handles what it raised; `Processor` implements it."""

    hooks: Hooks
    settings: Settings
    targets: OutputTargets

    def publish_outputs(
        self, attempt: Attempt, outputs: list[Message], sent: Sequence[SentMessage]
    ) -> None:
        """Publish what the handler returned, and what it sent itself."""

    def handle_failure(self, attempt: Attempt, error: BaseException) -> None:
        """Have the message retried or dead-lettered."""


class AttemptHandling(Handling):
    """The handling of the message of *attempt*, which gets what the handler returned."""

    __slots__ = ("_attempt",)

    def __init__(self, attempt: Attempt, settings: Settings, targets: OutputTargets) -> None:
        super().__init__(attempt.message, attempt.handler.name, settings, targets)
        self._attempt = attempt

    def add_returned(self, values: Sequence[object]) -> None:
        """Set the outputs that the handler returned; an answer is made of *values*."""
        self.keep_returned(values)
        super().add_returned(values)

    def keep_returned(self, values: Sequence[object]) -> None:
        """Keep *values* for an answer."""
        self._attempt.returned = values


class HandlerCall(AttemptHandling):
    """What comes before and after a call of the handler, for functions and coroutine functions.

    A context manager around the call; the caller assigns `outputs` inside. It calls the hooks and
    makes the message the current one; what the handler sends is kept until it returns. If nothing
    was raised, the outputs are published. Whatever was raised, `sys.exit()` too, is a failure of
    this message and is not raised further. *coroutine* calls the handler, if it is one.
    """

    __slots__ = ("_coroutine", "_end", "_entered", "_tokens", "outputs")

    def __init__(
        self, attempt: Attempt, end: AttemptEnd, coroutine: asyncio.Task[None] | None = None
    ) -> None:
        super().__init__(attempt, end.settings, end.targets)
        self._coroutine = coroutine
        if coroutine is not None:
            self.follow_task()
        self.outputs: list[Message] = []
        self._end = end

    def __enter__(self) -> HandlerCall:
        hooks, message = self._end.hooks, self.message
        if hooks.started:
            hooks.call(hooks.started, message)
        self._entered = hooks.enter(message) if hooks.handling else ()
        self._tokens = current_message.set(message), current_handling.set(self)
        return self

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> bool:
        if self._coroutine is not None and current_task() is not self._coroutine:
            # It swallowed its cancellation, and is destroyed after its loop has ended: perhaps by
            # the garbage collector, which runs in any context, and in code that holds our locks.
            return not isinstance(error, GeneratorExit)
        sent = self.end()
        try:
            outputs = self.outputs
            if error is None:
                try:
                    outputs, sent = addressed(self, self._attempt.handler.carry, outputs, sent)
                except Reject as refused:
                    error = refused
            if error is None:
                self._end.publish_outputs(self._attempt, outputs, sent)
            else:
                self._end.handle_failure(self._attempt, error)
        finally:
            of_message, of_handling = self._tokens
            current_message.reset(of_message)
            current_handling.reset(of_handling)
            if self._entered:
                self._end.hooks.leave(self._entered)
        return True


@functools.cache
def worker_name(pid: int) -> str:
    """Return ``host:pid``, by which people find a process."""
    return f"{socket.gethostname()}:{pid}"
