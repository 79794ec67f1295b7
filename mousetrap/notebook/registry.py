"""The background consumers of this process, one for each namespace, queue and name.

A cell that consumes can be run again: the function that it names replaces the one before it, and
there is never a second consumer that receives half of the messages.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from mousetrap.display.notices import print_notice
from mousetrap.display.safe_text import safe
from mousetrap.errors import MousetrapError, SettingsError
from mousetrap.flows.stage import Stage, stage, with_delays
from mousetrap.model.batch import Batch
from mousetrap.model.targets import Targets
from mousetrap.model.topology import Queue
from mousetrap.notebook.handle import Handle
from mousetrap.notebook.kernel_end import EndStep, at_end
from mousetrap.notebook.source_digest import SourceDigest, digest_of, unwrap
from mousetrap.runtime import clock, forks, threads
from mousetrap.runtime.environment import ipython_shell
from mousetrap.settings import Settings
from mousetrap.worker.captured_output import OutputCapture
from mousetrap.worker.handler import Handler
from mousetrap.worker.worker import Worker

REPLACE_TIMEOUT = 10.0  # seconds for the messages in progress of a consumer that is replaced
ALL_STOP_TIMEOUT = 3.0  # seconds for all consumers together; Jupyter kills a kernel after five

Key = tuple[str, str, str]  # namespace, queue, name


class _BackgroundConsumer:
    """One consumer; its function and its handle may be replaced while it runs."""

    def __init__(self, key: Key, options: tuple[Any, ...], worker: Worker, target: Any) -> None:
        self.key = key
        self.options = options  # what it was started with, except for the function
        self.worker = worker
        self.first_target = target  # the function or stage that it was started with
        self.target = target  # the one that runs
        self.notebook_name = _name_in_notebook(target)
        self.capture = OutputCapture()
        self.version = SourceDigest(target)
        self.handle = Handle(worker, key[2], self.version, self.capture, _stop_by_handle)

    def can_run(self, handler: Handler, options: tuple[Any, ...]) -> bool:
        """Return whether *handler* with *options* needs no new worker."""
        worker = self.worker
        is_usable = worker.error is None and not worker.is_stopping
        has_executor = handler.is_async is worker.handler.is_async
        return is_usable and options == self.options and has_executor

    def swap(self, target: Any, handler: Handler) -> bool:
        """Run *target* from the next message on; return whether it is another version.

        Raises:
            TypeError: it needs a new worker.
        """
        self.worker.swap(handler)
        is_new = digest_of(target) != self.version.digest
        self.target = target
        self.notebook_name = _name_in_notebook(target) or self.notebook_name
        self.version = SourceDigest(target, self.version.number + is_new)
        return is_new

    def differences(self, target: Any) -> str:
        """Return what *target*, if it is a stage, says and this worker does not do; "" if none."""
        first = self.first_target
        if not isinstance(target, Stage) or not isinstance(first, Stage):
            return ""
        changed = [each for each, value in target.options.items() if value != first.options[each]]
        if not changed:
            return ""
        return (
            f"its function runs, but not its new {' and '.join(changed)}: run the cell that "
            f"consumes again"
        )

    def remove(self) -> None:
        """Remove it from the consumers that `handles` lists."""
        self.capture.stop()
        if _consumers.get(self.key) is self:
            del _consumers[self.key]

    def __str__(self) -> str:
        _, queue, name = self.key
        return repr(safe(queue)) + (f" ({safe(name)})" if name else "")


_lock = forks.released_in_child(threads.RLock())  # one `consume` at a time
_consumers: dict[Key, _BackgroundConsumer] = {}


def consume(
    queue: Queue | str,
    handler: Callable[..., Any],
    settings: Settings | None = None,
    *,
    name: str | None = None,
    writes: Targets = None,
    routes: Targets = None,
    concurrency: int | None = None,
    retry_delays: tuple[float, ...] | None = None,
    prefetch: int | None = None,
    timeout: float | None = None,
    batch: Batch | None = None,
) -> Handle:
    """Run *handler* on the messages of *queue* in the background, and return a handle at once.

    A process has one such consumer for each namespace, queue and *name*. A second call replaces
    the first: with the same settings *handler* takes over between two messages; with others the
    old consumer finishes its messages in progress and a new one starts. In a notebook it is enough
    to run the cell that defines the function again: the new definition takes over.

    *handler* is a function (see `mousetrap.worker.handler`) or a stage. A stage is run with
    everything that its decorator says, the retry delays included, except for the arguments that
    are given here; a `Queue` as *queue* has retry delays of its own. What *handler* prints is kept
    with its message: ``handle.output()``.

    Raises:
        BrokerUnreachable, AccessRefused, TopologyMismatch: it did not start, and is not listed.
        SettingsError, TypeError, ValueError: an argument is wrong; a consumer that runs goes on.
    """
    of_caller = {"writes": writes, "routes": routes, "concurrency": concurrency,
                 "prefetch": prefetch, "timeout": timeout, "batch": batch}  # fmt: skip
    changes = {each: value for each, value in of_caller.items() if value is not None}
    if isinstance(handler, Stage):
        if isinstance(queue, str):  # another queue, perhaps, but the stage's retry delays
            queue = dataclasses.replace(handler.queue, name=queue)
        started = handler.replace(queue=with_delays(queue, retry_delays), **changes)
    else:
        started = stage(queue, retry_delays=retry_delays, batch=batch)(handler).replace(**changes)
    settings = settings or Settings.from_environment()
    function, queue = started.handler, started.queue
    options = (settings, started.options)
    key = (settings.namespace, queue.name, name or "")
    with _lock:
        old = _consumers.get(key)
        if old is not None and old.can_run(function, options):
            return _take_over(old, handler, function)
        worker = started.worker(settings)
        if old is not None:
            _stop_replaced(old)
        return _start(_BackgroundConsumer(key, options, worker, handler), old)


def handles() -> list[Handle]:
    """Return the handles of all background consumers of this process, the oldest first."""
    return [each.handle for each in list(_consumers.values())]


def _take_over(consumer: _BackgroundConsumer, target: Any, handler: Handler) -> Handle:
    before = consumer.version.number
    consumer.handle.freeze()  # from now on the worker's counts are another handle's
    is_new = consumer.swap(target, handler)
    consumer.first_target = target
    _mark_replaced(consumer)
    consumer.handle = Handle(
        consumer.worker, consumer.key[2], consumer.version, consumer.capture, _stop_by_handle
    )
    how = f"takes over from v{before} with the next message" if is_new else "goes on"
    _report(f"replaced the consumer of {consumer}: {_name_and_version(consumer)} {how}",
            consumer.handle)  # fmt: skip
    return consumer.handle


def _stop_replaced(old: _BackgroundConsumer) -> None:
    _mark_replaced(old)
    try:
        _stop(old, REPLACE_TIMEOUT)
    except TimeoutError as error:
        _report(f"replacing the consumer of {old}: {error}")
    if number := old.worker.given_back:
        _report(
            f"replacing the consumer of {old}: {number} of its messages were given back to the "
            f"queue, because their handlers had not returned after {REPLACE_TIMEOUT:g} s; what "
            f"these return later is dropped"
        )


def _start(consumer: _BackgroundConsumer, old: _BackgroundConsumer | None) -> Handle:
    _install_hooks()
    if old is not None:
        is_new = old.version.digest != consumer.version.digest
        consumer.version.number = old.version.number + is_new
    consumer.worker.add_hook(consumer.capture)
    consumer.capture.start()
    # listed before it starts: after an interrupt it can still be found and stopped
    _consumers[consumer.key] = consumer
    try:
        consumer.worker.start()
    except BaseException:
        consumer.remove()
        raise
    line = f"replaced the consumer of {consumer}: {_name_and_version(consumer)} has started"
    _report(line if old else "", consumer.handle)
    return consumer.handle


def _stop_by_handle(handle: Handle, timeout: float) -> None:
    with _lock:
        for consumer in list(_consumers.values()):
            if consumer.handle is handle:
                _stop(consumer, timeout)


def _stop(consumer: _BackgroundConsumer, timeout: float) -> None:
    """Stop *consumer*; after an interrupt it goes on stopping, and is no longer listed."""
    try:
        consumer.worker.stop(timeout)
    finally:
        if consumer.worker.is_stopping:
            consumer.remove()


def _mark_replaced(consumer: _BackgroundConsumer) -> None:
    at = clock.local_time()
    consumer.handle.replaced = f"replaced at {at}: consume() was called again for this queue"


def _name_and_version(consumer: _BackgroundConsumer) -> str:
    return f"{safe(consumer.worker.handler.name)} v{consumer.version.number}"


def _report(line: str, handle: Handle | None = None) -> None:
    """Print *line*, and who else consumes, to the person in the cell."""
    lines = [line] if line else []
    if handle is not None:
        with suppress(MousetrapError):
            attached = handle.attached()
            lines += attached.lines() if attached is not None else []
    if lines:
        print_notice("mousetrap: " + "\n  ".join(lines))


# ---- after each cell, and at the end of the process ----------------------------------------------

_hooked_shell: Any = None  # the IPython shell in which the hook is registered


def _install_hooks() -> None:
    global _hooked_shell
    running = ipython_shell()
    if running is not None and running is not _hooked_shell:
        _hooked_shell = running
        running.events.register("post_run_cell", _on_cell_end)
    at_end(EndStep.STOP_CONSUMERS, _stop_at_exit)


def _name_in_notebook(target: Any) -> str:
    """Return the name under which the notebook has *target*; "" if it has no name for it."""
    running = ipython_shell()
    name = getattr(unwrap(target), "__name__", "")
    return name if running is not None and running.user_ns.get(name) is target else ""


def _on_cell_end(*_: object) -> None:
    """Let functions that the cell has defined again take over from the ones that run."""
    running = ipython_shell()
    if running is None or not _lock.acquire(blocking=False):  # another thread is in `consume`
        return
    try:
        for consumer in list(_consumers.values()):
            now = running.user_ns.get(consumer.notebook_name, consumer.target)
            if now is not consumer.target or digest_of(now) != consumer.version.digest:
                _swap_redefined(consumer, now)
            if isinstance(consumer.target, Stage):
                with suppress(SettingsError):  # a stage on the way is not defined yet
                    consumer.worker.targets.joins = consumer.target.joined_by()
    finally:
        _lock.release()


def _swap_redefined(consumer: _BackgroundConsumer, now: Any) -> None:
    handle, before = consumer.handle, consumer.version.number
    try:
        is_new = consumer.swap(now, now.handler if isinstance(now, Stage) else Handler(now))
    except (TypeError, ValueError) as error:
        note = f"v{before} goes on, because {error}; run the cell that consumes again"
        if handle.note != note:  # once only
            handle.note = note
            _report(f"{consumer}: {note}")
        return
    handle.version, handle.function_name = consumer.version, consumer.worker.handler.name
    handle.note = consumer.differences(now)
    if is_new:
        name = _name_and_version(consumer)
        _report(f"{consumer}: {name} takes over from v{before} with the next message")


def _stop_at_exit() -> None:
    """Stop all consumers; messages whose handlers take longer than the timeout are given back.

    A process that is killed does not run this; the broker notices that its connections are gone.
    """
    deadline = clock.monotonic() + ALL_STOP_TIMEOUT
    for consumer in list(_consumers.values()):
        if clock.remaining(deadline):
            with suppress(Exception):  # also those of a log handler whose stream is closed
                timeout = min(ALL_STOP_TIMEOUT / 2, clock.remaining(deadline))
                consumer.worker.stop(timeout, process_ends=True)
