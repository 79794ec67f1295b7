"""What a worker process warns of: other applications, messages left behind, a changed identity."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from mousetrap.errors import MousetrapError
from mousetrap.runs.former_queues import leftovers, remember, renames
from mousetrap.runtime import threads
from mousetrap.settings import Settings
from mousetrap.worker.worker import Worker

WARNING_INTERVAL = 600.0  # seconds between two checks; all workers of the queue answer each one


class WorkWarnings:
    """Checks at the start of *worker* and then regularly; *notify* gets each new warning, once.

    Threads: `start` and `stop` from one thread, `text` from any. *notify* is called on a thread of
    its own.
    """

    def __init__(self, worker: Worker, settings: Settings, notify: Callable[[str], object]) -> None:
        self._worker = worker
        self._settings = settings
        self._notify = notify
        self._notified: set[str] = set()
        self._stopping = threads.Event()
        self._checks = 0  # so far
        self.text = ""  # the present warnings

    def start(self) -> None:
        """Begin to check."""
        threads.Thread(target=self._run, name="mousetrap-warnings", daemon=True).start()

    def stop(self) -> None:
        """Check no more."""
        self._stopping.set()

    def _run(self) -> None:
        queue = self._worker.queue
        used = [queue.name, queue.dead, queue.quarantine, *self._worker.targets.queues]
        stage = self._worker.handler.name
        remember(self._settings, stage, used, queue.name)
        self._notify_new(str(each) for each in renames(self._settings) if each.stage == stage)
        while not self._stopping.is_set():
            found: list[str] = []
            with suppress(MousetrapError, TimeoutError):  # without a broker, nothing is known
                found = [*self._other_applications(), *map(str, leftovers(self._settings))]
                self._notify_new(found)
            self.text = "; ".join(found)
            self._checks += 1
            self._stopping.wait(WARNING_INTERVAL)

    def _notify_new(self, warnings: Iterable[str]) -> None:
        for each in warnings:
            if each not in self._notified and not self._stopping.is_set():
                self._notified.add(each)
                self._notify(each)

    def _other_applications(self) -> list[str]:
        """Return a warning if a worker with another stage consumes the queue.

        More workers with the same stage are what a queue is for.
        """
        attached = self._worker.attached()
        stage = self._worker.handler.name
        others = [each for each in attached.others if each.stage != stage] if attached else []
        if not others:
            return []
        names = ", ".join(map(str, others[:3])) + (", ..." if len(others) > 3 else "")
        return [
            f"queue {self._worker.queue.name!r} has consumers of another application: each message "
            f"goes to one consumer only, so {stage} does not see all. Stop the others, or give "
            f"each application a queue of its own. They are: {names}"
        ]
