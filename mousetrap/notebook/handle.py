"""The handle of a background consumer: a cell can display it, wait for it and stop it."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from mousetrap.display.safe_text import safe
from mousetrap.model.retry_policy import reason_of
from mousetrap.model.topology import Queue
from mousetrap.notebook.source_digest import SourceDigest
from mousetrap.runtime import clock, forks
from mousetrap.worker.captured_output import AttemptOutput, OutputCapture, Outputs
from mousetrap.worker.consumer_discovery import DISCOVERY_TIMEOUT, Attached
from mousetrap.worker.statistics import Statistics
from mousetrap.worker.worker import Worker

COUNTS = ("received", "done", "retried", "dead")
MAX_ATTACHED_AGE = 2.0  # seconds for which a handle shows what it knows of other consumers
MAX_OUTPUTS_SHOWN = 3  # attempts whose output a handle shows
MAX_FAILURE_LINES = 5  # of the output of a failed attempt

_display: Callable[[Handle], None] | None = None  # shows a handle in a cell


@dataclass(frozen=True)
class Failure:
    """An attempt that raised *error*, with the output that is kept of all attempts at its message.

    *message* is the id of the message.
    """

    message: str
    error: BaseException
    output: Outputs

    def lines(self) -> list[str]:
        """Return the reason, and the last lines that the attempt printed."""
        printed = [line for page in self.output[-1:] for line in page.lines()]
        reason = f"{safe(reason_of(self.error), 200)} (message {safe(self.message[:8])})"
        return [reason, *(f"  {line}" for line in printed[-MAX_FAILURE_LINES:])]

    def __repr__(self) -> str:
        return "\n".join(self.lines())


class Handle(forks.OfOneProcess):
    """A background consumer, as `mousetrap.consume` returns it.

    Counts start at zero when the handle is made, so that a cell which waits for them can be run
    again. As a context manager it stops the consumer at the end of the block.

    Threads: every method from any thread; `stop` not from inside a handler.
    """

    def __init__(
        self,
        worker: Worker,
        name: str,
        version: SourceDigest,
        capture: OutputCapture,
        stop: Callable[[Handle, float], None],
    ) -> None:
        self.worker = worker
        self.function_name = worker.handler.name
        self.name = name  # distinguishes several consumers of one queue
        self.version = version
        self.replaced = ""  # when it was replaced, in words; "" while the consumer is its own
        self.note = ""  # why a redefined function could not replace the one that runs
        self._capture = capture
        self._stop = stop
        now = worker.statistics()
        self._counts_before = {each: getattr(now, each) for each in COUNTS}
        self._last: Statistics | None = None  # its own, once the worker is another handle's
        self._last_failures: list[Failure] = []
        self._last_output: list[AttemptOutput] = []
        self._attached: Attached | None = None
        self._attached_at = 0.0  # on the monotonic clock

    @property
    def queue(self) -> Queue:
        """The queue that is consumed."""
        return self.worker.queue

    @property
    def is_running(self) -> bool:
        """Whether it consumes, or will again when the broker is back."""
        return not self.replaced and self.worker.error is None and not self.worker.is_stopping

    @property
    def stale(self) -> str:
        """How the source that runs differs from the present one; "" if it does not."""
        return self.note or self.version.stale

    @property
    def failures(self) -> list[Failure]:
        """The latest failed attempts with what they printed, the last one last."""
        if self._last is not None:
            return self._last_failures
        return [
            Failure(id, error, Outputs(self._capture.outputs(id)))
            for id, error in list(self.worker.failures)
        ]

    def output(self, n: int | None = 10) -> Outputs:
        """Return what the last *n* attempts that printed have printed; None: all that is kept."""
        pages = self._capture.outputs() if self._last is None else self._last_output
        return Outputs(pages if n is None else pages[-n:] if n > 0 else [])

    def freeze(self) -> None:
        """Keep the counts, failures and outputs of now: another handle goes on with the worker."""
        failures, output = self.failures, self._capture.outputs()
        self._last = self.statistics()
        self._last_failures, self._last_output = failures, output

    def statistics(self) -> Statistics:
        """Return the worker's statistics, with counts since this handle was made.

        Once another handle has replaced this one, they do not change any more.
        """
        if self._last is not None:
            return self._last
        now = self.worker.statistics()
        counts = {each: getattr(now, each) - self._counts_before[each] for each in COUNTS}
        return dataclasses.replace(now, **counts)

    def wait_until(self, *, timeout: float = 30.0, **counts: int) -> Statistics:
        """Wait until each named count is reached: ``handle.wait_until(done=10, dead=1)``.

        An interrupt ends the wait and not the consumer.

        Raises:
            TimeoutError: a count was not reached in *timeout* seconds, or cannot be reached
                because this handle was replaced; the message has the counts.
            MousetrapError: the consumer stopped because of an error.
        """
        if (last := self._last) is not None:
            if all(getattr(last, name) >= number for name, number in counts.items()):
                return last
            raise TimeoutError(
                f"this handle was {self.replaced}: wait for the handle that it returned then; "
                f"the counts until then: {last}"
            )
        wanted = {name: number + self._counts_before[name] for name, number in counts.items()}
        try:
            self.worker.wait_until(timeout=timeout, **wanted)
        except TimeoutError:
            raise TimeoutError(
                f"waited {timeout:g} s for {counts}; so far: {self.statistics()}"
            ) from None
        return self.statistics()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the consumer has stopped; return whether it has.

        Raises:
            MousetrapError: the error that stopped it.
        """
        return self.worker.wait(timeout)

    def attached(self, timeout: float = DISCOVERY_TIMEOUT) -> Attached | None:
        """Return which consumers the queue has, here and elsewhere; None if it is unknown."""
        self._attached_at = clock.monotonic()
        self._attached = self.worker.attached(timeout) if self.is_running else None
        return self._attached

    def stop(self, timeout: float = 10.0) -> None:
        """Finish the messages in progress and stop; a handle that was replaced does nothing.

        A message whose handler still runs after *timeout* seconds is given back to its queue, and
        what the handler returns later is dropped (see `Worker.stop`). An interrupt ends the wait;
        the consumer still stops.

        Raises:
            TimeoutError: the broker did not confirm a message that was given back.
        """
        if not self.replaced:
            self._stop(self, timeout)

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ---- display -------------------------------------------------------------------------------

    def __repr__(self) -> str:
        now = self.statistics()
        counts = f"{now.done:,} done, {now.retried:,} retried, {now.dead:,} dead"
        lines = [f"<Handle {self._route()}: {now.state}, {self.version}, {counts}, "
                 f"{now.in_progress} in progress"
                 + f" for {now.oldest:,.0f} s" * (now.oldest >= 1.0) + ">"]  # fmt: skip
        lines += self._lines(now)
        return "\n".join(lines)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        if clock.monotonic() - self._attached_at > MAX_ATTACHED_AGE:
            self.attached()
        return {"text/plain": repr(self), "text/html": self._html()}

    def _ipython_display_(self) -> None:
        if _display is None:  # imported by name, and only now: most handles are never displayed
            import_module("mousetrap.notebook.panel")
        assert _display is not None
        _display(self)

    @property
    def remarks(self) -> list[str]:
        """What a panel shows of it besides counts: version, other consumers, last output."""
        failed = {failure.message for failure in self.failures[-1:]}
        printed = [
            f"message {safe(page.id[:8])} printed: {page.last_line}"
            for page in self.output(MAX_OUTPUTS_SHOWN)
            if page.id not in failed
        ]
        return [f"{self._route()}: {self.version}", *self._warnings(), *printed]

    def _route(self) -> str:
        worker = self.worker
        name = f" ({self.name})" if self.name else ""
        route = f"{worker.queue.name}{name} → {self.function_name}"
        return safe(f"{route}{worker.targets}")

    def _lines(self, now: Statistics) -> list[str]:
        return [*([safe(now.problem, 300)] if now.problem else []), *self._warnings()]

    def _warnings(self) -> list[str]:
        """Return what a person should know without asking for it."""
        attached = self._attached.lines() if self._attached is not None else []
        failed = [line for failure in self.failures[-1:] for line in failure.lines()]
        return [
            *([self.replaced] if self.replaced else []),
            *([f"stale: {self.stale}"] if self.stale else []),
            *attached,
            *(["last failure: " + failed[0], *failed[1:]] if failed else []),
        ]

    def _html(self) -> str:
        now = self.statistics()
        figures = "".join(
            f"<td><b>{getattr(now, name):,}</b> {name.replace('_', ' ')}</td>"
            for name in (*COUNTS, "in_progress")
        )
        head = html.escape(f"{self._route()}: {now.state}, {self.version}")
        lines = html.escape("\n".join(self._lines(now)))
        output = self.output(MAX_OUTPUTS_SHOWN)
        return (
            f"<div class='tex2jax_ignore mathjax_ignore'><p>{head}</p>"
            f"<table><tbody><tr>{figures}</tr></tbody></table>"
            + (f"<pre>{lines}</pre>" if lines else "")
            + (output._repr_html_() if output else "")
            + "</div>"
        )


def register_display(display: Callable[[Handle], None]) -> None:
    """Make *display* show a handle in a cell; `mousetrap.notebook.panel` registers its panel."""
    global _display
    _display = display
