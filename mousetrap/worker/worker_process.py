"""Where one worker process runs, and after its death the next: started, followed, judged.

What a process reports of itself is in a file, which outlives whatever ends the process.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mousetrap.model.backoff import backoff
from mousetrap.runtime import clock
from mousetrap.runtime.exit_codes import ExitCause, classify

COUNTS = ("received", "done", "retried", "dead", "reconnects")  # that add up
FACTS = ("alive", "connected", "consuming")
LIVED_WELL = 30.0  # seconds after which a death is no longer one in a row; a guess
STALE = 5.0  # seconds without a report after which nothing is known; reports come twice a second
FIRST_DELAY, LONGEST_DELAY = 0.2, 30.0  # seconds between a death and the next start


class WorkerProcess:
    """One place for a worker process: *command* is run there with *environment*.

    Its output goes to the file *log*; without one it shows ours, and with *out* (a file
    descriptor) what it prints goes there.

    Threads: one.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        report: Path,
        *,
        log: Path | None = None,
        out: int | None = None,
    ) -> None:
        self.name = name
        self.process: subprocess.Popen[bytes] | None = None
        self.replaced = 0
        self._command = [*command, "--report", str(report)]
        self._environment = dict(environment)
        self._report = report
        self._log = log
        self._out = out
        self._past: Counter[str] = Counter()  # of the processes before this one
        self._last: dict[str, Any] = {}  # what this one reported
        self._changed: tuple[int, float] = (0, 0.0)  # the file's own time, and when we saw it
        self._started = 0.0
        self._failures = 0  # deaths in a row
        self._due = 0.0

    def start(self) -> None:
        """Start a process."""
        with suppress(OSError):
            self._report.unlink()
        self._last, self._changed = {}, (0, 0.0)
        self._started = clock.monotonic()
        # A group of its own: Ctrl-C reaches us alone, and we end it in good order.
        apart: dict[str, Any] = (
            {"process_group": 0}
            if os.name == "posix"
            else {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
        )
        with open(self._log or os.devnull, "wb") as log:
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,  # the lifeline: it closes however this process ends
                stdout=log if self._log else self._out,
                stderr=subprocess.STDOUT if self._log else None,
                env=self._environment,
                **apart,
            )

    def death(self) -> tuple[ExitCause, int] | None:
        """Say why the process has ended by itself, and its exit code; None while it runs."""
        code = None if self.process is None else self.process.poll()
        if code is None:
            return None
        last = self.last_report()
        has_worked = self._last.get("has_worked", False)
        return classify(code, has_worked=has_worked, has_failed=last.get("state") == "failed"), code

    def bury(self) -> float:
        """Take the dead process out and return in how many seconds the next one is due.

        The delay doubles with each death in a row, up to `LONGEST_DELAY`.
        """
        assert self.process is not None
        now, last = clock.monotonic(), self.last_report()
        self._past.update({name: last.get(name, 0) for name in COUNTS})
        self._failures = 1 if now - self._started >= LIVED_WELL else self._failures + 1
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process, self._last = None, {}
        delay = backoff(self._failures, first=FIRST_DELAY, cap=LONGEST_DELAY)
        self._due = now + delay
        return delay

    def replace_if_due(self) -> None:
        """Start the next process if there is none and its time has come."""
        if self.process is None and clock.monotonic() >= self._due:
            self.replaced += 1
            self.start()

    @property
    def is_working(self) -> bool:
        """A process is here and has said, a moment ago, that it consumes."""
        return bool(self.facts()["consuming"])

    @property
    def age(self) -> float:
        """Seconds since the process was started."""
        return clock.monotonic() - self._started

    def facts(self) -> dict[str, bool]:
        """Whether the process is alive, connected and consuming; a silent one is none of them."""
        report = self.last_report()
        is_here = self.process is not None and self.process.poll() is None
        is_fresh = is_here and clock.monotonic() - self._changed[1] < STALE
        return {name: is_fresh and bool(report.get(name)) for name in FACTS}

    def counts(self) -> Counter[str]:
        """What all processes of this place have done; ``in_progress`` is of the present one."""
        last = self.last_report()
        total = Counter(self._past)
        total.update({name: last.get(name, 0) for name in COUNTS})
        is_here = self.process is not None and self.process.poll() is None
        for name in ("in_progress", "prefetched"):
            total[name] = last.get(name, 0) if is_here else 0
        return total

    def last_report(self) -> dict[str, Any]:
        """Return what the process said last of itself, ``{}`` if nothing yet."""
        with suppress(OSError, ValueError):
            changed = self._report.stat().st_mtime_ns
            if self.process is not None and changed != self._changed[0]:
                self._last = json.loads(self._report.read_text(encoding="utf-8"))
                self._changed = changed, clock.monotonic()
        return self._last

    def let_go(self) -> None:
        """Have the process stop in good order; returns at once."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()  # for a worker that means: your parent is done

    def kill(self) -> None:
        """End the process by SIGKILL, as a crash would."""
        if self.process is not None:
            self.process.kill()
