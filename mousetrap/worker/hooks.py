"""Hooks: code that a worker calls at each step of a message.

The capture of output is a hook; metrics, tracing and a user's own code can be added in the same
way. A hook is a subclass of `Hook` that overrides the methods it needs. This one counts outcomes:

    from mousetrap.worker.hooks import Hook

    class Counts(Hook):
        def __init__(self):
            self.outcomes = Counter()

        def finished(self, queue, outcome):
            self.outcomes[outcome.kind] += 1

    worker = Worker("start_fetch", fetch, hooks=[Counts()])

A worker may have several hooks. A method that no hook overrides costs one check of an empty tuple
for each message. The counts of `Worker.statistics` are not made by a hook, because they must change
together with the number of messages in progress, on which stopping depends.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from mousetrap.display.safe_text import class_name, safe
from mousetrap.errors import MousetrapError
from mousetrap.model.message import Message
from mousetrap.model.outcome import Outcome

log = logging.getLogger("mousetrap.worker.hooks")


class Hook:
    """Methods that a worker calls at the steps of each message; they do nothing unless overridden.

    The first argument is always the plain name of the queue that the worker reads, so that one
    hook can serve several workers.

    An exception that a method raises is logged, once for each method as a warning, and has no
    effect on the message. The log has the type of the exception and where it was raised, not its
    text, which may quote a body.

    Threads: see each method. A worker with a concurrency above 1 calls `started` and `handling`
    from several threads at the same time. While a method runs on the I/O thread, all messages of
    the worker wait, so it must be quick and must not block.
    """

    def received(self, queue: str, message_id: str) -> None:
        """The broker delivered a message; *message_id* is empty if its sender gave it none.

        A message that is delivered again is received again. Threads: the I/O thread.
        """

    def started(self, queue: str, message: Message) -> None:
        """The handler is about to be called with *message*.

        Threads: the one that calls the handler (for a coroutine function, the event loop's).
        """

    def handling(
        self, queue: str, message: Message,  # noqa: ARG002 -- for the methods that override it
    ) -> AbstractContextManager[object]:  # fmt: skip
        """Return a context manager that is entered before the handler is called and left after it.

        It is left when the outputs, the retry or the dead letter have been given to the publisher.
        It never sees the exception of a handler, nor can it swallow one; `finished` has the reason.

        Threads: as `started`. Context variables that are set when it is entered are seen by the
        handler.
        """
        return nullcontext()

    def published(self, queue: str, message: Message, target: str) -> None:
        """The broker confirmed *message*, which the worker sent to the queue *target*.

        It is an output of a handler, a retry, a dead letter, or a copy of a redelivered message
        that is published before it is handled (see `mousetrap.model.poison_messages`). *target* is
        the name on the wire, with the namespace.

        Threads: the I/O thread.
        """

    def finished(self, queue: str, outcome: Outcome) -> None:
        """The attempt to handle a message has an *outcome*, and the message is being acked.

        `Outcome.kind` is ``done``, ``retried`` or ``dead``, and `Outcome.seconds` how long the
        attempt took. The method is called before the message is counted, so before
        `Worker.wait_until` returns. For a message that is dead-lettered without being handled,
        `started` is not called.

        Threads: the I/O thread; if events are switched off and there was nothing to publish, the
        one that called the handler.
        """

    def reconnected(self, queue: str) -> None:
        """The worker lost its channel or connection, and the broker delivers to it again.

        Messages that it had not acked are delivered again. Threads: the I/O thread.
        """

    def stopped(self, queue: str, error: MousetrapError | None) -> None:
        """The worker has stopped, or cannot go on because of *error*; called once.

        Threads: the one that stops the worker, or, with *error*, any.
        """


class Hooks:
    """The hooks of one worker, sorted by the methods that they override.

    Each step is a tuple of bound methods, empty if no hook overrides it: the caller checks that
    before it calls `call` or `enter`.

    Threads: `add` before the worker is started, the rest from any.
    """

    def __init__(self, queue: str, hooks: Iterable[Hook] = ()) -> None:
        self.received: tuple[Callable[..., object], ...] = ()
        self.started: tuple[Callable[..., object], ...] = ()
        self.handling: tuple[Callable[..., AbstractContextManager[object]], ...] = ()
        self.published: tuple[Callable[..., object], ...] = ()
        self.finished: tuple[Callable[..., object], ...] = ()
        self.reconnected: tuple[Callable[..., object], ...] = ()
        self.stopped: tuple[Callable[..., object], ...] = ()
        self._queue = queue
        self._reported: set[Callable[..., object]] = set()  # methods whose failure was logged
        for hook in hooks:
            self.add(hook)

    def add(self, hook: Hook) -> None:
        """Have *hook* called after those that are there.

        Raises:
            TypeError: it is not an instance of a subclass of `Hook`.
        """
        if not isinstance(hook, Hook):
            raise TypeError(f"{hook!r} is no hook: give an instance of a subclass of Hook")
        self.received += _overridden(hook, Hook.received)
        self.started += _overridden(hook, Hook.started)
        self.handling += _overridden(hook, Hook.handling)
        self.published += _overridden(hook, Hook.published)
        self.finished += _overridden(hook, Hook.finished)
        self.reconnected += _overridden(hook, Hook.reconnected)
        self.stopped += _overridden(hook, Hook.stopped)

    def call(self, methods: Iterable[Callable[..., object]], *arguments: object) -> None:
        """Call each of *methods* with the queue and *arguments*; their exceptions are logged."""
        for method in methods:
            try:
                method(self._queue, *arguments)
            except BaseException as error:  # noqa: BLE001 -- sys.exit() in a hook harms no message
                self._report(method, error)

    def enter(self, message: Message) -> list[AbstractContextManager[object]]:
        """Enter the context manager of each `handling`; return those that could be entered."""
        entered: list[AbstractContextManager[object]] = []
        for method in self.handling:
            try:
                context = method(self._queue, message)
                context.__enter__()
                entered.append(context)
            except BaseException as error:  # noqa: BLE001 -- as above
                self._report(method, error)
        return entered

    def leave(self, entered: Sequence[AbstractContextManager[object]]) -> None:
        """Leave the context managers that `enter` returned, the last one first."""
        for context in reversed(entered):
            try:
                context.__exit__(None, None, None)
            except BaseException as error:  # noqa: BLE001 -- as above
                self._report(type(context).__exit__, error)

    def _report(self, method: Callable[..., object], error: BaseException) -> None:
        level = logging.DEBUG if method in self._reported else logging.WARNING
        self._reported.add(method)
        try:
            [*_, last] = traceback.extract_tb(error.__traceback__)
            name = getattr(method, "__qualname__", class_name(method))
            where = f"{last.filename}:{last.lineno}"
        except BaseException:  # noqa: BLE001 -- the attributes of a user's objects may raise as well
            name, where = class_name(method), "an unknown place"
        log.log(level, "%s: hook %s raised %s at %s; the message is not affected",
                safe(self._queue), safe(name), class_name(error), where)  # fmt: skip


def _overridden(hook: Hook, default: Callable[..., Any]) -> tuple[Callable[..., Any], ...]:
    """Return the method of *hook* that overrides *default*, as a tuple of one; () if none does."""
    method = getattr(hook, default.__name__)
    return () if getattr(method, "__func__", None) is default else (method,)
