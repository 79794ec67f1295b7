"""A worker in the form that `mousetrap.runtime.signals.run_until_signalled` runs."""

from __future__ import annotations

from mousetrap.runtime.environment import is_kernel
from mousetrap.runtime.signals import STOP_TIMEOUT
from mousetrap.worker.worker import Worker


class WorkerService:
    """Runs *worker*, with which this process ends, unless it is a notebook's kernel.

    So the messages that the worker did not begin are given back by copies: another process receives
    them next, and must not count them as lost. *stop_timeout* is the one that `stop` is called
    with, in seconds.
    """

    def __init__(self, worker: Worker, stop_timeout: float = STOP_TIMEOUT) -> None:
        self._worker = worker
        self._stop_timeout = stop_timeout

    def start(self) -> object:
        """Start the worker; a start that is interrupted stops it as `stop` would."""
        return self._worker._start(self._stop_timeout, process_ends=self._process_ends)

    def wait(self, timeout: float, /) -> bool:
        """Wait as `Worker.wait` does."""
        return self._worker.wait(timeout)

    def stop(self, timeout: float, /) -> None:
        """Stop the worker."""
        self._worker.stop(timeout, process_ends=self._process_ends)

    @property
    def _process_ends(self) -> bool:
        return not is_kernel()
