"""The consumers of this kernel, one for each namespace, queue and name; what makes a re-run safe.

A cell that consumes may be run again and again: the function that it names takes over, and there is
never a second consumer that takes half of the messages.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from mousetrap.display.safe_text import safe
from mousetrap.errors import MousetrapError
from mousetrap.flows.stage import Stage
from mousetrap.model.topology import DEFAULT_RETRY_DELAYS, Queue
from mousetrap.notebook.handle import Handle
from mousetrap.notebook.source_digest import SourceDigest, inner, mark
from mousetrap.runtime import clock, threads
from mousetrap.runtime.environment import shell
from mousetrap.settings import Settings
from mousetrap.worker.captured_output import OutputCapture
from mousetrap.worker.handler import Handler
from mousetrap.worker.worker import Worker

GRACE = 10.0  # seconds for what a consumer that is replaced has in hand
AT_EXIT = 3.0  # seconds for all consumers together; Jupyter kills a kernel after five

Key = tuple[str, str, str]  # namespace, queue, name


class _Consumer:
    """One consumer, whose function and handle change while it lives."""

    def __init__(self, key: Key, asked: tuple[Any, ...], worker: Worker, given: Any) -> None:
        self.key = key
        self.asked = asked  # what it was started with, but for the function
        self.worker = worker
        self.given = given  # what the person named: a function or a stage
        self.known_as = _name_in_notebook(given)
        self.capture = OutputCapture()
        self.version = SourceDigest(given)
        self.handle = Handle(worker, key[2], self.version, self.capture, _leave)

    def can_run(self, handler: Handler, asked: tuple[Any, ...]) -> bool:
        """Say whether it is what is asked for, if only *handler* takes over."""
        worker = self.worker
        is_well = worker.error is None and not worker.is_stopping
        return is_well and asked == self.asked and handler.is_async is worker.handler.is_async

    def take(self, given: Any, handler: Handler) -> bool:
        """Have *given* run from the next message on; say whether it is another version.

        Raises:
            TypeError: it needs a new worker.
        """
        self.worker.swap(handler)
        is_new = mark(given) != self.version.mark
        self.given, self.known_as = given, _name_in_notebook(given) or self.known_as
        self.version = SourceDigest(given, self.version.number + is_new)
        return is_new

    def forget(self) -> None:
        """Be no more one of those that `handles` returns."""
        self.capture.stop()
        if _consumers.get(self.key) is self:
            del _consumers[self.key]

    def __str__(self) -> str:
        _, queue, name = self.key
        return repr(safe(queue)) + (f" ({safe(name)})" if name else "")


_lock = threads.RLock()  # one `consume` at a time
_consumers: dict[Key, _Consumer] = {}


def consume(
    queue: Queue | str,
    handler: Callable[..., Any],
    settings: Settings | None = None,
    *,
    name: str | None = None,
    writes: str | None = None,
    concurrency: int | None = None,
    retry_delays: tuple[float, ...] | None = None,
    prefetch: int | None = None,
) -> Handle:
    """Run *handler* on the messages of *queue* in the background, and return a handle at once.

    In one process there is one such consumer for a namespace, a queue and a *name*. Called again,
    it replaces the one before: with the same settings *handler* takes over between two messages,
    else the old one finishes what it has in hand and a new one starts. In a notebook it is enough
    to run the cell that defines the function: what is called so now takes over.

    *handler* is a function (see `mousetrap.worker.handler`) or a stage, which brings its own
    *writes*, *concurrency* and *prefetch*. What it prints is kept with its message:
    ``handle.output()``.

    Raises:
        BrokerUnreachable, AccessRefused, TopologyMismatch: it did not start; nothing is left.
        SettingsError, TypeError, ValueError: something cannot work; what runs goes on.
    """
    if isinstance(handler, Stage):
        function = handler.handler
        writes = handler.writes if writes is None else writes
        concurrency = handler.concurrency if concurrency is None else concurrency
        prefetch = handler.prefetch if prefetch is None else prefetch
    else:
        function = Handler(handler)
    if isinstance(queue, str):
        queue = Queue(queue, DEFAULT_RETRY_DELAYS if retry_delays is None else retry_delays)
    elif retry_delays is not None:
        queue = Queue(queue.name, retry_delays)
    settings = settings or Settings.from_environment()
    concurrency = 1 if concurrency is None else concurrency
    asked = (queue, settings, writes, concurrency, prefetch)
    key = (settings.namespace, queue.name, name or "")
    with _lock:
        old = _consumers.get(key)
        if old is not None and old.can_run(function, asked):
            return _take_over(old, handler, function)
        worker = Worker(
            queue, function, settings, writes=writes, concurrency=concurrency, prefetch=prefetch
        )
        if old is not None:
            _replace(old)
        return _start(_Consumer(key, asked, worker, handler), old)


def handles() -> list[Handle]:
    """The handles of all consumers of this process, the first one first."""
    return [each.handle for each in list(_consumers.values())]


def _take_over(consumer: _Consumer, given: Any, handler: Handler) -> Handle:
    before = consumer.version.number
    is_new = consumer.take(given, handler)
    _retire(consumer)
    consumer.handle = Handle(
        consumer.worker, consumer.key[2], consumer.version, consumer.capture, _leave
    )
    how = f"takes over from v{before} with the next message" if is_new else "goes on"
    _say(f"replaced the consumer of {consumer}: {_which(consumer)} {how}", consumer.handle)
    return consumer.handle


def _replace(old: _Consumer) -> None:
    _retire(old)
    try:
        _stop(old, GRACE)
    except TimeoutError as error:
        _say(f"replacing the consumer of {old}: {error}")


def _start(consumer: _Consumer, old: _Consumer | None) -> Handle:
    _attend()
    if old is not None:
        consumer.version.number = old.version.number + (old.version.mark != consumer.version.mark)
    consumer.worker.add_hook(consumer.capture)
    consumer.capture.start()
    _consumers[consumer.key] = consumer  # first: an interrupt leaves none that nobody knows of
    try:
        consumer.worker.start()
    except BaseException:
        consumer.forget()
        raise
    said = f"replaced the consumer of {consumer}: {_which(consumer)} has started" if old else ""
    _say(said, consumer.handle)
    return consumer.handle


def _leave(handle: Handle, timeout: float) -> None:
    with _lock:
        for consumer in list(_consumers.values()):
            if consumer.handle is handle:
                _stop(consumer, timeout)


def _stop(consumer: _Consumer, timeout: float) -> None:
    """Stop *consumer*; interrupted, it goes on stopping, and is forgotten all the same."""
    try:
        consumer.worker.stop(timeout)
    finally:
        if consumer.worker.is_stopping:
            consumer.forget()


def _retire(consumer: _Consumer) -> None:
    at = clock.local_time()
    consumer.handle.replaced = f"replaced at {at}: the queue was consumed anew"


def _which(consumer: _Consumer) -> str:
    return f"{safe(consumer.worker.handler.name)} v{consumer.version.number}"


def _say(line: str, handle: Handle | None = None) -> None:
    """Tell the person in the cell, on stderr: stdout is for data."""
    lines = [line] if line else []
    if handle is not None:
        with suppress(MousetrapError):
            attached = handle.attached()
            lines += attached.lines() if attached is not None else []
    if lines and sys.stderr is not None:
        sys.stderr.write("mousetrap: " + "\n  ".join(lines) + "\n")
        sys.stderr.flush()


# ---- while cells are run, and at the end ---------------------------------------------------------

_attended: Any = None  # the IPython shell whose cells are followed
_owner = 0  # the process that is to leave nothing behind


def _attend() -> None:
    global _attended, _owner
    running = shell()
    if running is not None and running is not _attended:
        _attended = running
        running.events.register("post_run_cell", _follow)
    if _owner != os.getpid():
        _owner = os.getpid()
        atexit.register(_stop_all)  # restart and shutdown end here as well: IPython has no event


def _name_in_notebook(given: Any) -> str:
    """The name by which the notebook knows *given*; "" if it does not."""
    running = shell()
    name = getattr(inner(given), "__name__", "")
    return name if running is not None and running.user_ns.get(name) is given else ""


def _follow(*_: object) -> None:
    """After each cell: a function that was defined anew takes over from the one before."""
    running = shell()
    if running is None or not _lock.acquire(blocking=False):  # another thread is about to consume
        return
    try:
        for consumer in list(_consumers.values()):
            now = running.user_ns.get(consumer.known_as, consumer.given)
            if now is not consumer.given or mark(now) != consumer.version.mark:
                _follow_one(consumer, now)
    finally:
        _lock.release()


def _follow_one(consumer: _Consumer, now: Any) -> None:
    handle, before = consumer.handle, consumer.version.number
    try:
        is_new = consumer.take(now, now.handler if isinstance(now, Stage) else Handler(now))
    except (TypeError, ValueError) as error:
        note = f"v{before} goes on, for {error}; run the cell that consumes again"
        if handle.note != note:  # say it once
            handle.note = note
            _say(f"{consumer}: {note}")
        return
    handle.version, handle.note = consumer.version, ""
    if is_new:
        _say(f"{consumer}: {_which(consumer)} takes over from v{before} with the next message")


def _stop_all() -> None:
    """At the end of the process: finish what is done soon, give back the rest, say goodbye.

    A process that is killed does not come here; the broker sees that its connections are gone.
    """
    if _owner != os.getpid():  # a fork: the consumers are its parent's
        return
    deadline = clock.monotonic() + AT_EXIT
    for consumer in list(_consumers.values()):
        if clock.remaining(deadline):
            with suppress(MousetrapError, TimeoutError):
                consumer.worker.stop(min(AT_EXIT / 2, clock.remaining(deadline)))
