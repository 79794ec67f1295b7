"""Runs workers in processes of their own and replaces those that end, while a ``with`` block lasts.

The processes run ``mousetrap work``, as in production, so a check that passes with them has tested
the real program. One of them is started and stopped by `mousetrap.worker.worker_process`.
Prototyped in ``notebooks/check_pipeline.ipynb``. Prototyped in ``notebooks/bench_scaling.ipynb``:
how far more processes carry.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from itertools import count, islice
from pathlib import Path
from typing import Any

from mousetrap.errors import ProcessEnded, SettingsError
from mousetrap.runtime import clock, threads
from mousetrap.runtime.exit_codes import ExitCode, describe
from mousetrap.runtime.interrupt import run_uninterrupted
from mousetrap.runtime.temporary_folder import TemporaryFolder
from mousetrap.settings import Settings
from mousetrap.worker.worker_process import FACTS, WorkerProcess

log = logging.getLogger("mousetrap.worker.supervisor")

PROCESS_CHECK_INTERVAL = 0.1  # seconds between two calls of `check` by `wait`
# seconds for a process to give back its messages, to close its connections and to exit
PROCESS_EXIT_TIMEOUT = 3.4
KILL_TIMEOUT = 5.0  # seconds for a process to be gone after SIGKILL; it takes milliseconds


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
        self._folder: TemporaryFolder | None = None
        self._owner = os.getpid()
        self._processes: dict[str, WorkerProcess] = {}  # by name, like "fetch-0"
        self._lock = threads.Lock()  # guards the processes against `statistics`
        self._is_stopping = False
        self._waiting: list[WorkerProcess] = []  # started when the first one works
        self._final_statistics: dict[str, Any] = {}  # once the processes are stopped

    @classmethod
    def of(
        cls,
        references: Mapping[str, str],
        processes: int | Mapping[str, int],
        settings: Settings,
        options: Mapping[str, Any],
    ) -> Supervisor:
        """Return a supervisor, not started, with a number of processes for each stage.

        *references* maps the name of each stage to its ``module:attribute``. *processes* is one
        number for all stages, or maps names to numbers (1 for a name that is missing). *options*
        are those of `Stage.worker`, where None means the stage's own value.

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
                text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
                arguments += [f"--{name.replace('_', '-')}", text]
        wanted = {reference: counts.get(name, 1) for name, reference in references.items()}
        return cls(wanted, settings, options=arguments)

    def start(self) -> Supervisor:
        """Start the processes; returns before they are connected to the broker."""
        self._folder = TemporaryFolder("mousetrap-workers-")
        numbers: dict[str, count[int]] = {}
        processes: dict[str, WorkerProcess] = {}
        for stage, many in self._stages.items():
            label = stage.rpartition(":")[2]
            for n in islice(numbers.setdefault(label, count()), many):
                name = f"{label}-{n}"
                processes[name] = WorkerProcess(
                    name,
                    [sys.executable, "-m", "mousetrap", "work", stage, "--with-parent",
                     *self._options],
                    os.environ | self.settings.to_environment(),
                    self._file(name, "json"),
                    log=None if self._is_shown else self._file(name, "log"),
                    out=self._out,
                )  # fmt: skip
        first = list(processes.values())
        if self._is_replaced:
            first, self._waiting = first[:1], first[1:]
        self._processes = processes
        for worker in first:
            worker.start()
        return self

    def check(self) -> None:
        """Replace processes that have ended; to be called about ten times per second.

        Raises:
            ProcessEnded: a process has ended by itself and is not replaced; says which and how.
        """
        with self._lock:
            self._check()

    def _check(self) -> None:
        if self._waiting and any(worker.is_working for worker in self._processes.values()):
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each.start()
        for worker in self._processes.values():
            if worker not in self._waiting:
                self._check_one(worker)

    def _check_one(self, worker: WorkerProcess) -> None:
        worker.replace_if_due()
        exited = worker.exit_cause()
        if exited is None or worker.process is None:
            return
        cause, code = exited
        pid, how, age = worker.process.pid, describe(code), worker.age
        if cause == "misconfigured" and self._is_shown:  # it has printed the reason itself
            raise ProcessEnded(
                f"{worker.name} cannot work as it is configured: it {how}; the reason is above; "
                f"correct it and start again", code
            )  # fmt: skip
        if cause == "misconfigured" or (cause == "died" and not self._is_replaced):
            output = f":\n{self.logs()[worker.name][-2000:]}" if not self._is_shown else ""
            raise ProcessEnded(f"worker process {worker.name} {how}{output}", code)
        delay = worker.mark_exited()
        if cause == "no broker":
            self._notify(f"{worker.name} found no broker; the next try is in {delay:.1f} s")
        else:
            self._notify(
                f"{worker.name} (pid {pid}) {how} after {age:.0f} s; its messages are delivered "
                f"again, and the next process starts in {delay:.1f} s"
            )

    def wait(self, timeout: float = 0.0) -> bool:
        """Call `check` for *timeout* seconds, at least once; return False, or raise its error."""
        deadline = clock.monotonic() + timeout
        self.check()
        while clock.monotonic() < deadline:
            clock.sleep(
                min(PROCESS_CHECK_INTERVAL, timeout)
            )  # nothing wakes us when a process ends
            self.check()
        return False

    def wait_until_consuming(self, timeout: float = 30.0) -> None:
        """Return when the broker delivers messages to each process.

        `start` returns earlier: an interpreter that imports the stages takes a second or more.

        Raises:
            ProcessEnded: as by `check`.
            TimeoutError: not all consume after *timeout* seconds; it says how many do.
        """
        deadline = clock.monotonic() + timeout
        while (found := self.statistics())["consuming"] < found["processes"]:
            if clock.monotonic() >= deadline:
                raise TimeoutError(
                    f"{found['consuming']:d} of {found['processes']} worker processes consume "
                    f"after {timeout:g} s: mousetrap doctor checks what they need"
                )
            self.wait(PROCESS_CHECK_INTERVAL)

    def kill(self, name: str) -> None:
        """End one process by SIGKILL, as a crash would; it is not replaced."""
        self._processes.pop(name).kill()

    def crash(self, name: str) -> None:
        """End one process by SIGKILL; `check` replaces it after a delay.

        Threads: only the one that calls `check`.
        """
        with self._lock:
            worker = self._processes[name]
            worker.kill()
            if worker.process is not None:
                worker.process.wait(5.0)
                worker.mark_exited()

    def pids(self) -> dict[str, int]:
        """Return the process ids of the running processes, by name."""
        return {name: each.pid for name, each in self._running.items() if each.poll() is None}

    def kill_all(self) -> None:
        """End all processes by SIGKILL; their messages are delivered again."""
        for worker in self._processes.values():
            worker.kill()

    def logs(self) -> dict[str, str]:
        """Return what each process has written so far; empty texts if the output is shown."""
        if self._is_shown:
            return dict.fromkeys(self._running, "")
        return {n: self._file(n, "log").read_text(errors="replace") for n in self._running}

    def statistics(self) -> dict[str, Any]:
        """Return the sums over all processes, those that have ended included.

        ``received``, ``done``, ``retried``, ``dead``, ``reconnects`` as in `Statistics`;
        ``in_progress``, ``prefetched`` and ``stuck`` of the running processes; ``oldest`` is the
        largest of theirs, in seconds. ``replaced`` counts processes.
        ``alive``, ``connected``, ``consuming`` say how many of the ``processes`` are. Figures are
        up to half a second old.
        """
        with self._lock:
            return self._final_statistics or self._summed()

    def _summed(self) -> dict[str, Any]:
        total: Counter[str] = Counter()
        facts: Counter[str] = Counter()
        for worker in self._processes.values():
            total.update(worker.counts())
            facts.update(worker.facts())
        if self._is_stopping:
            facts["consuming"] = 0
        return {
            "processes": len(self._processes),
            **{name: facts[name] for name in FACTS},
            "oldest": round(max((w.oldest for w in self._processes.values()), default=0.0), 3),
            "replaced": sum(worker.replaced for worker in self._processes.values()),
            **total,
        }

    def stop(self, timeout: float = 15.0) -> None:
        """Let all processes finish their messages; after *timeout* s they are killed.

        Each gives back by itself what it has not finished in time (see `Worker.stop`), long before
        that. An interrupt ends the waiting only; the processes still stop. In a forked child of the
        process that made this supervisor it does nothing: the processes are the parent's.

        Raises:
            TimeoutError: only with *is_replaced*: some processes neither finished their messages
                nor gave them back, so these will be delivered again.
        """
        if os.getpid() != self._owner:
            return
        run_uninterrupted(lambda: self._stop(timeout))

    def _stop(self, timeout: float) -> None:
        self._waiting, self._is_stopping = [], True
        running = [name for name, process in self._running.items() if process.poll() is None]
        for worker in self._processes.values():
            worker.request_stop()
        _wait_for_all(self._running.values(), timeout)
        late = []
        for name, worker in self._processes.items():
            if (process := worker.process) is None:
                continue
            # A process without a broker had no messages. Nor had a misconfigured one: it ended by
            # itself at this moment, like the process because of which all are stopped.
            if name in running and process.returncode not in (ExitCode.OK, ExitCode.NO_BROKER):
                exited = worker.exit_cause()
                if exited is None or exited[0] != "misconfigured":
                    late.append(f"{name} {describe(process.returncode)}")
        with self._lock:
            self._final_statistics = self._final_statistics or self._summed()
            self._processes.clear()
        if self._folder is not None:
            self._folder.close()
        if late and self._is_replaced:
            raise TimeoutError(
                f"some processes did not finish their messages in time: {', '.join(late)}; "
                f"these messages will be delivered again"
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
        return {
            n: worker.process for n, worker in self._processes.items() if worker.process is not None
        }

    def _file(self, name: str, kind: str) -> Path:
        if self._folder is None:
            raise RuntimeError("not started")
        return self._folder.path / f"{name}.{kind}"


def _wait_for_all(processes: Collection[subprocess.Popen[bytes]], timeout: float) -> None:
    """Wait until all *processes* have ended; end those by SIGKILL that run after *timeout* s."""
    deadline = clock.monotonic() + timeout
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(clock.remaining(deadline))
    running = [each for each in processes if each.poll() is None]
    for process in running:
        process.kill()
    for process in running:
        process.wait(KILL_TIMEOUT)
