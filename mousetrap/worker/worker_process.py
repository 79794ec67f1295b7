"""Starts one worker process, reads its reports, and starts another one after it has ended.

A process writes its figures to a file, the report, so that they can be read after it was killed.
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
from mousetrap.runtime.processes import own_group

SUMMED_COUNTS = ("received", "done", "retried", "dead", "reconnects")
FACTS = ("alive", "connected", "consuming")
STABLE_AFTER = 30.0  # seconds of running after which the next delay is the shortest; a guess
MAX_REPORT_AGE = 5.0  # seconds after which a report is not believed; there are two per second
FIRST_RESTART_DELAY, MAX_RESTART_DELAY = 0.2, 30.0  # seconds between an exit and the next start


class WorkerProcess:
    """One worker process at a time: *command*, run with *environment*.

    Its output goes to the file *log*. Without *log* it has the output of this process, except that
    its standard output goes to the file descriptor *out*, if that is given.

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
        self._earlier_counts: Counter[str] = Counter()  # of the processes before this one
        self._last: dict[str, Any] = {}  # the last report of this process
        self._changed: tuple[int, float] = (0, 0.0)  # the file's time stamp, and when it was read
        self._started = 0.0
        self._failures = 0  # exits in a row
        self._restart_at = 0.0  # on the monotonic clock

    def start(self) -> None:
        """Start a process, with no report yet."""
        with suppress(OSError):
            self._report.unlink()
        self._last, self._changed = {}, (0, 0.0)
        self._started = clock.monotonic()
        with open(self._log or os.devnull, "wb") as log:
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,  # closed when this process ends, however that happens
                stdout=log if self._log else self._out,
                stderr=subprocess.STDOUT if self._log else None,
                env=self._environment,
                **own_group(),  # Ctrl-C reaches this process only, which stops the others
            )

    def exit_cause(self) -> tuple[ExitCause, int] | None:
        """Return why the process has ended by itself, and its exit code; None while it runs."""
        code = None if self.process is None else self.process.poll()
        if code is None:
            return None
        last = self.last_report()
        has_worked = self._last.get("has_worked", False)
        return classify(code, has_worked=has_worked, has_failed=last.get("state") == "failed"), code

    def mark_exited(self) -> float:
        """Record that the process has exited; return the seconds until `replace_if_due` acts.

        The delay doubles with each exit in a row, up to `MAX_RESTART_DELAY`.
        """
        assert self.process is not None
        now, last = clock.monotonic(), self.last_report()
        self._earlier_counts.update({name: last.get(name, 0) for name in SUMMED_COUNTS})
        self._failures = 1 if now - self._started >= STABLE_AFTER else self._failures + 1
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process, self._last = None, {}
        delay = backoff(self._failures, first=FIRST_RESTART_DELAY, cap=MAX_RESTART_DELAY)
        self._restart_at = now + delay
        return delay

    def replace_if_due(self) -> None:
        """Start the next process if the delay after an exit is over."""
        if self.process is None and clock.monotonic() >= self._restart_at:
            self.replaced += 1
            self.start()

    @property
    def is_working(self) -> bool:
        """The process runs, and its latest report says that it consumes."""
        return bool(self.facts()["consuming"])

    @property
    def age(self) -> float:
        """Seconds since the process was started."""
        return clock.monotonic() - self._started

    def facts(self) -> dict[str, bool]:
        """Return whether it is alive, connected and consuming; without recent reports it is not."""
        report = self.last_report()
        is_running = self.process is not None and self.process.poll() is None
        is_fresh = is_running and clock.monotonic() - self._changed[1] < MAX_REPORT_AGE
        return {name: is_fresh and bool(report.get(name)) for name in FACTS}

    def counts(self) -> Counter[str]:
        """Return sums over this process and those before; ``in_progress`` is of this one only."""
        last = self.last_report()
        total = Counter(self._earlier_counts)
        total.update({name: last.get(name, 0) for name in SUMMED_COUNTS})
        is_running = self.process is not None and self.process.poll() is None
        for name in ("in_progress", "prefetched", "stuck"):
            total[name] = last.get(name, 0) if is_running else 0
        return total

    @property
    def oldest(self) -> float:
        """Seconds since its oldest message in progress was begun; 0.0 if there is none."""
        oldest: float = self.last_report().get("oldest", 0.0)
        is_running = self.process is not None and self.process.poll() is None
        return oldest + clock.monotonic() - self._changed[1] if oldest and is_running else 0.0

    def last_report(self) -> dict[str, Any]:
        """Return the last report of the process, ``{}`` if there is none yet."""
        with suppress(OSError, ValueError):
            changed = self._report.stat().st_mtime_ns
            if self.process is not None and changed != self._changed[0]:
                self._last = json.loads(self._report.read_text(encoding="utf-8"))
                self._changed = changed, clock.monotonic()
        return self._last

    def request_stop(self) -> None:
        """Ask the process to finish its messages and exit; returns at once."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()  # a worker with --with-parent stops then

    def kill(self) -> None:
        """End the process by SIGKILL, as a crash would."""
        if self.process is not None:
            self.process.kill()
