"""What a cell holds of a consumer in the background: it shows itself and can be waited for."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mousetrap.display.safe_text import safe
from mousetrap.model.retry_policy import reason_of
from mousetrap.model.topology import Queue
from mousetrap.notebook.source_digest import SourceDigest
from mousetrap.runtime import clock
from mousetrap.worker.captured_output import OutputCapture, Outputs
from mousetrap.worker.consumer_discovery import DISCOVERY_TIMEOUT, Attached
from mousetrap.worker.worker import Statistics, Worker

COUNTS = ("received", "done", "retried", "dead")
FRESH = 2.0  # seconds for which an answer about other consumers is good enough to be shown
SHOWN_OUTPUT = 3  # handlings, in the handle's own display
SHOWN_LINES = 5  # of a failure's output


@dataclass(frozen=True)
class Failure:
    """A handling that raised *error*, and what it had printed (of all attempts that are kept)."""

    message: str  # its id
    error: BaseException
    output: Outputs

    def lines(self) -> list[str]:
        """What went wrong, and the end of what was printed before."""
        printed = [line for page in self.output[-1:] for line in page.lines()]
        what = f"{safe(reason_of(self.error), 200)} (message {safe(self.message[:8])})"
        return [what, *(f"  {line}" for line in printed[-SHOWN_LINES:])]

    def __repr__(self) -> str:
        return "\n".join(self.lines())


class Handle:
    """A consumer in the background: what `mousetrap.consume` returns.

    Counts are messages since this handle was made, so that the cells which wait for them can be run
    again. As a context manager it stops the consumer at the end of the block.

    Threads: every method from any thread; `stop` not from inside a handler.
    """

    def __init__(
        self,
        worker: Worker,
        name: str,
        version: SourceDigest,
        capture: OutputCapture,
        leave: Callable[[Handle, float], None],
    ) -> None:
        self.worker = worker
        self.name = name  # tells several consumers of one queue apart
        self.version = version
        self.replaced = ""  # by what, and when; "" while this is the handle of its consumer
        self.note = ""  # why a function that was defined anew could not take over
        self._capture = capture
        self._leave = leave
        now = worker.statistics()
        self._base = {each: getattr(now, each) for each in COUNTS}
        self._attached: Attached | None = None
        self._asked = 0.0  # on the monotonic clock

    @property
    def queue(self) -> Queue:
        """The queue that is consumed."""
        return self.worker.queue

    @property
    def is_running(self) -> bool:
        """It consumes, or will again once the broker is back."""
        return not self.replaced and self.worker.error is None and not self.worker.is_stopping

    @property
    def stale(self) -> str:
        """In what way another source runs than the one a person reads; "" when it is the same."""
        return self.note or self.version.stale

    @property
    def failures(self) -> list[Failure]:
        """The latest handlings that raised, the last one last, with what they had printed."""
        return [
            Failure(id, error, Outputs(self._capture.outputs(id)))
            for id, error in list(self.worker.failures)
        ]

    def output(self, n: int | None = 10) -> Outputs:
        """What was printed in the last *n* handlings that did; None: in all that are kept."""
        pages = self._capture.outputs()
        return Outputs(pages if n is None else pages[-n:] if n > 0 else [])

    def statistics(self) -> Statistics:
        """Count what has happened since this handle was made."""
        now = self.worker.statistics()
        counts = {each: getattr(now, each) - self._base[each] for each in COUNTS}
        return dataclasses.replace(now, **counts)

    def wait_until(self, *, timeout: float = 30.0, **counts: int) -> Statistics:
        """Wait until each named count is reached: ``handle.wait_until(done=10, dead=1)``.

        An interrupt ends the waiting; the consumer goes on.

        Raises:
            TimeoutError: not in *timeout* seconds; says how far it got.
            MousetrapError: the consumer stopped for good.
        """
        wanted = {name: number + self._base[name] for name, number in counts.items()}
        try:
            self.worker.wait_until(timeout=timeout, **wanted)
        except TimeoutError:
            raise TimeoutError(
                f"waited {timeout:g} s for {counts}; so far: {self.statistics()}"
            ) from None
        return self.statistics()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the consumer has stopped for good; say whether it has.

        Raises:
            MousetrapError: what stopped it.
        """
        return self.worker.wait(timeout)

    def attached(self, timeout: float = DISCOVERY_TIMEOUT) -> Attached | None:
        """Say who consumes the queue, here and elsewhere; None if the broker does not."""
        self._asked = clock.monotonic()
        self._attached = self.worker.attached(timeout) if self.is_running else None
        return self._attached

    def stop(self, timeout: float = 10.0) -> None:
        """Finish the messages in hand and stop; does nothing once this handle was replaced.

        An interrupt ends the waiting; the consumer stops all the same.

        Raises:
            TimeoutError: a handler still ran after *timeout* seconds; its message will be
                delivered again, so it may be done twice.
        """
        if not self.replaced:
            self._leave(self, timeout)

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ---- display -------------------------------------------------------------------------------

    def __repr__(self) -> str:
        now = self.statistics()
        counts = f"{now.done:,} done, {now.retried:,} retried, {now.dead:,} dead"
        lines = [f"<Handle {self._way()}: {now.state}, {self.version}, {counts}, "
                 f"{now.in_progress} in progress>"]  # fmt: skip
        lines += self._lines(now)
        return "\n".join(lines)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        if clock.monotonic() - self._asked > FRESH:
            self.attached()
        return {"text/plain": repr(self), "text/html": self._html()}

    def _ipython_display_(self) -> None:
        from mousetrap.notebook.panel import panel  # which watches handles

        panel(self)._ipython_display_()

    @property
    def remarks(self) -> list[str]:
        """What a panel tells of it beside counts: the version, who else consumes, what it said."""
        told = {failure.message for failure in self.failures[-1:]}
        said = [
            f"message {safe(page.id[:8])} said: {page.last_line}"
            for page in self.output(SHOWN_OUTPUT)
            if page.id not in told
        ]
        return [f"{self._way()}: {self.version}", *self._remarks(), *said]

    def _way(self) -> str:
        worker = self.worker
        name = f" ({self.name})" if self.name else ""
        way = f"{worker.queue.name}{name} → {worker.handler.name}"
        return safe(way + (f" → {worker.writes}" if worker.writes else ""))

    def _lines(self, now: Statistics) -> list[str]:
        return [*([safe(now.problem, 300)] if now.problem else []), *self._remarks()]

    def _remarks(self) -> list[str]:
        """What a person should know and would not ask for."""
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
        head = html.escape(f"{self._way()}: {now.state}, {self.version}")
        remarks = html.escape("\n".join(self._lines(now)))
        output = self.output(SHOWN_OUTPUT)
        return (
            f"<div class='tex2jax_ignore mathjax_ignore'><p>{head}</p>"
            f"<table><tbody><tr>{figures}</tr></tbody></table>"
            + (f"<pre>{remarks}</pre>" if remarks else "")
            + (output._repr_html_() if output else "")
            + "</div>"
        )
