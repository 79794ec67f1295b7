"""A worker in the form that `mousetrap.runtime.signals.run_until_signalled` runs."""

from __future__ import annotations

from mousetrap.runtime.environment import is_kernel
from mousetrap.worker.worker import Worker


class WorkerService:
    """Runs *worker*, with which this process ends, unless it is a notebook's kernel.

    So the messages that the worker did not begin are given back by copies: another process receives
    them next, and must not count them as lost.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def start(self) -> object:
        """Start the worker."""
        return self._worker.start()

    def wait(self, timeout: float, /) -> bool:
        """Wait as `Worker.wait` does."""
        return self._worker.wait(timeout)

    def stop(self, timeout: float, /) -> None:
        """Stop the worker."""
        self._worker.stop(timeout, process_ends=not is_kernel())
