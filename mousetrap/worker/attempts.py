"""The attempts that a worker has in progress, and which of several ends of an attempt counts."""

from __future__ import annotations

from mousetrap.amqp.delivery import Delivery
from mousetrap.runtime import clock, forks, threads
from mousetrap.worker.attempt import Attempt


class Attempts:
    """The attempts that were begun and are neither acked nor left to the broker, oldest first.

    `by_delivery` and `is_closed` change only while `lock` is held, which also guards the worker's
    counts. `running` has the attempts whose handler, or a hook around it, has not returned, also
    those that are no longer in progress.

    Threads: any.
    """

    def __init__(self) -> None:
        self.lock = forks.released_in_child(threads.Lock())
        self.by_delivery: dict[Delivery, Attempt] = {}
        self.running: dict[Delivery, Attempt] = {}
        self.is_closed = False  # no more attempts are begun

    def __len__(self) -> int:
        return len(self.by_delivery)

    def close(self) -> None:
        """Begin no more attempts: a message that was not begun by now stays so."""
        with self.lock:
            self.is_closed = True

    def end(self, attempt: Attempt) -> bool:
        """End *attempt*; return False if it had ended before, so that this end has no effect."""
        with self.lock:
            is_first, attempt.has_ended = not attempt.has_ended, True
        return is_first

    def add_ended(self, attempt: Attempt) -> None:
        """Have *attempt* in progress although no handler is to be called, or one no longer counts.

        Its message is published again.
        """
        with self.lock:
            self.by_delivery[attempt.delivery] = attempt
            attempt.has_ended = True

    def remove(self, delivery: Delivery) -> None:
        """Count *delivery* as in progress no more."""
        with self.lock:
            self.by_delivery.pop(delivery, None)

    @property
    def oldest(self) -> float:
        """Seconds since the oldest one was begun; 0.0 if there is none."""
        with self.lock:
            first = next(iter(self.by_delivery.values()), None)
        return 0.0 if first is None else clock.monotonic() - first.started
