"""Workers as real processes, looked after for as long as a ``with`` block lasts.

They are what production runs, ``mousetrap work``, so a check that passes with them has tested the
real thing. What starts and ends one of them is in `mousetrap.worker.worker_process`. Prototyped in
``notebooks/check_pipeline.ipynb``.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

from mousetrap.errors import ProcessEnded, SettingsError
from mousetrap.runtime import clock, threads
from mousetrap.runtime.exit_codes import ExitCode, describe
from mousetrap.runtime.interrupt import run_uninterrupted
from mousetrap.settings import Settings
from mousetrap.worker.worker_process import FACTS, WorkerProcess

log = logging.getLogger("mousetrap.worker.supervisor")

PAUSE = 0.1  # seconds between two looks of `wait`
MARGIN = 5.0  # seconds for a process to close its connections and exit, after its messages


class Supervisor:
    """Starts *stages* (name or ``module:attribute`` -> how many processes) and stops them.

    Each process sees *settings* through its environment, gets the *options* of ``mousetrap work``
    and stops when this process ends, however that happens: it finishes its messages first. The
    output of each process is kept in a file (see `logs`); with *is_shown* it appears with the
    output of this process, and *out* is the file descriptor for what handlers print.

    A process that ends by itself makes `check` raise; with *is_replaced* another one is started
    after a delay that doubles, and *notify* is called with a line of text about it. A process that
    found no broker is always replaced. A process that cannot work as it is configured always makes
    `check` raise, because the next one would end the same way; so with *is_replaced* the first
    process starts alone, and the others once it works.

    Threads: `statistics` from any thread, the other methods from one thread.
    """

    def __init__(
        self,
        stages: Mapping[str, int],
        settings: Settings | None = None,
        *,
        options: Sequence[str] = (),
        is_replaced: bool = False,
        is_shown: bool = False,
        out: int | None = None,
        notify: Callable[[str], object] = log.warning,
    ) -> None:
        self.settings = settings or Settings.from_environment()
        self._stages = dict(stages)
        self._options = list(options)
        self._is_replaced = is_replaced
        self._is_shown = is_shown
        self._out = out
        self._notify = notify
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._slots: dict[str, WorkerProcess] = {}  # by name, like "fetch-0"
        self._lock = threads.Lock()  # guards the slots against who asks for statistics
        self._is_stopping = False
        self._waiting: list[WorkerProcess] = []  # for the first to work
        self._sum: dict[str, Any] = {}  # of all, once they are stopped

    @classmethod
    def of(
        cls,
        references: Mapping[str, str],
        processes: int | Mapping[str, int],
        settings: Settings,
        options: Mapping[str, Any],
    ) -> Supervisor:
        """Return a supervisor, not started, of *processes* (a number, or one by name) for each.

        *references* maps the name of each stage to its ``module:attribute``; *options* are those
        of `Stage.worker`, where None means the stage's own value.

        Raises:
            SettingsError: *processes* names a stage that is not among *references*.
        """
        counts = (
            processes if isinstance(processes, Mapping) else dict.fromkeys(references, processes)
        )
        if unknown := counts.keys() - references.keys():
            raise SettingsError(f"processes names no stage of this flow: {', '.join(unknown)}")
        arguments = []
        for name, value in options.items():
            if value is not None:
                text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
                arguments += [f"--{name.replace('_', '-')}", text]
        wanted = {reference: counts.get(name, 1) for name, reference in references.items()}
        return cls(wanted, settings, options=arguments)

    def start(self) -> Supervisor:
        """Start the processes; they connect by themselves, jobs wait for them in the queues."""
        self._folder = tempfile.TemporaryDirectory(prefix="mousetrap-workers-")
        numbers: dict[str, count[int]] = {}
        slots: dict[str, WorkerProcess] = {}
        for stage, many in self._stages.items():
            label = stage.rpartition(":")[2]
            for n in islice(numbers.setdefault(label, count()), many):
                name = f"{label}-{n}"
                slots[name] = WorkerProcess(
                    name,
                    [sys.executable, "-m", "mousetrap", "work", stage, "--with-parent",
                     *self._options],
                    os.environ | self.settings.to_environment(),
                    self._file(name, "json"),
                    log=None if self._is_shown else self._file(name, "log"),
                    out=self._out,
                )  # fmt: skip
        first = list(slots.values())
        if self._is_replaced:
            first, self._waiting = first[:1], first[1:]
        self._slots = slots
        for slot in first:
            slot.start()
        return self

    def check(self) -> None:
        """Look after the processes: call it now and then.

        Raises:
            ProcessEnded: one has ended by itself and is not replaced; names it and says how.
        """
        with self._lock:
            self._check()

    def _check(self) -> None:
        if self._waiting and any(slot.is_working for slot in self._slots.values()):
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each.start()
        for slot in self._slots.values():
            if slot not in self._waiting:
                self._look_after(slot)

    def _look_after(self, slot: WorkerProcess) -> None:
        slot.replace_if_due()
        death = slot.death()
        if death is None or slot.process is None:
            return
        verdict, code = death
        pid, how, age = slot.process.pid, describe(code), slot.age
        if verdict == "misconfigured" and self._is_shown:  # it has said itself why
            raise ProcessEnded(
                f"{slot.name} cannot work as it is configured: it {how}; see above, and start "
                f"again when that is mended", code
            )  # fmt: skip
        if verdict == "misconfigured" or (verdict == "died" and not self._is_replaced):
            words = f":\n{self.logs()[slot.name][-2000:]}" if not self._is_shown else ""
            raise ProcessEnded(f"worker process {slot.name} {how}{words}", code)
        delay = slot.bury()
        if verdict == "no broker":
            self._notify(f"{slot.name} found no broker; the next try is in {delay:.1f} s")
        else:
            self._notify(
                f"{slot.name} (pid {pid}) {how} after {age:.0f} s; the next one starts in "
                f"{delay:.1f} s, and gets the messages it had in hand"
            )

    def wait(self, timeout: float = 0.0) -> bool:
        """Look after the processes for *timeout* seconds, at least once; raises as `check` does."""
        deadline = clock.monotonic() + timeout
        self.check()
        while clock.monotonic() < deadline:
            clock.sleep(min(PAUSE, timeout))  # processes ring no bell
            self.check()
        return False

    def kill(self, name: str) -> None:
        """End one process by SIGKILL, as a crash would, for good; no other is told."""
        self._slots.pop(name).kill()

    def crash(self, name: str) -> None:
        """End one process by SIGKILL; a moment later `check` starts the next in its place.

        Threads: one, the same that calls `check`.
        """
        with self._lock:
            slot = self._slots[name]
            slot.kill()
            if slot.process is not None:
                slot.process.wait(5.0)
                slot.bury()

    def pids(self) -> dict[str, int]:
        """The process ids of those that run now, by name."""
        return {name: each.pid for name, each in self._running.items() if each.poll() is None}

    def kill_all(self) -> None:
        """End all at once by SIGKILL; their messages are delivered again."""
        for slot in self._slots.values():
            slot.kill()

    def logs(self) -> dict[str, str]:
        """What each process has written so far; for those whose output is shown, nothing."""
        if self._is_shown:
            return dict.fromkeys(self._running, "")
        return {n: self._file(n, "log").read_text(errors="replace") for n in self._running}

    def statistics(self) -> dict[str, Any]:
        """Sum up what all have done, those that died included.

        ``received``, ``done``, ``retried``, ``dead``, ``reconnects`` as in `worker.Statistics`;
        ``in_progress`` and ``prefetched`` of those that live; ``replaced`` counts processes.
        Figures are up to half a second old. ``alive``, ``connected``, ``consuming``: how many
        processes are, of ``processes``.
        """
        with self._lock:
            return self._sum or self._summed()

    def _summed(self) -> dict[str, Any]:
        total: Counter[str] = Counter()
        facts: Counter[str] = Counter()
        for slot in self._slots.values():
            total.update(slot.counts())
            facts.update(slot.facts())
        if self._is_stopping:
            facts["consuming"] = 0
        return {
            "processes": len(self._slots),
            **{name: facts[name] for name in FACTS},
            "replaced": sum(slot.replaced for slot in self._slots.values()),
            **total,
        }

    def stop(self, timeout: float = 15.0) -> None:
        """Have all finish what is in hand; those that do not within *timeout* s are killed.

        An interrupt ends the waiting; they are stopped all the same.

        Raises:
            TimeoutError: only where they are replaced: some left messages in hand, which will be
                delivered again.
        """
        run_uninterrupted(lambda: self._stop(timeout))

    def _stop(self, timeout: float) -> None:
        self._waiting, self._is_stopping = [], True
        running = [name for name, process in self._running.items() if process.poll() is None]
        for slot in self._slots.values():
            slot.let_go()
        deadline = clock.monotonic() + timeout
        late = []
        for name, slot in self._slots.items():
            if (process := slot.process) is None:
                continue
            try:
                process.wait(max(0.1, deadline - clock.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5.0)
            # No broker: it was still looking for one, and had nothing. Misconfigured: it ended by
            # itself just now, like the one for which all stop.
            if name in running and process.returncode not in (ExitCode.OK, ExitCode.NO_BROKER):
                death = slot.death()
                if death is None or death[0] != "misconfigured":
                    late.append(f"{name} {describe(process.returncode)}")
        with self._lock:
            self._sum = self._sum or self._summed()
            self._slots.clear()
        if self._folder is not None:
            self._folder.cleanup()
        if late and self._is_replaced:
            raise TimeoutError(
                f"not all had finished their messages when they were told to stop: "
                f"{', '.join(late)}; what they had in hand will be delivered again"
            )

    def __enter__(self) -> Supervisor:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        states = ", ".join(
            f"{name} {'running' if process.poll() is None else f'exit {process.returncode}'}"
            for name, process in self._running.items()
        )
        return f"<Supervisor {states or 'none'}>"

    @property
    def _running(self) -> dict[str, subprocess.Popen[bytes]]:
        return {n: slot.process for n, slot in self._slots.items() if slot.process is not None}

    def _file(self, name: str, kind: str) -> Path:
        if self._folder is None:
            raise RuntimeError("not started")
        return Path(self._folder.name) / f"{name}.{kind}"
