"""An executor that collects deliveries to batches, and hands each batch to a thread or coroutine.

A batch is handled when it is full, or when the time is over for which its first message may wait.
Until a thread is free it goes on filling. Prototyped in ``notebooks/bench_batch.ipynb``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from mousetrap.amqp.delivery import Delivery
from mousetrap.model.batch import Batch
from mousetrap.runtime import forks, threads
from mousetrap.worker.attempt import Attempt
from mousetrap.worker.executors import Executor


class Work:
    """What one thread or coroutine handles next, in one call or in several.

    `waiting` are deliveries that are not begun; `alone` are attempts whose call together with
    others failed.
    """

    __slots__ = ("_lock", "alone", "calling", "generation", "is_abandoned", "is_submitted",
                 "waiting")  # fmt: skip

    def __init__(self, *deliveries: Delivery) -> None:
        self._lock = threads.Lock()
        self.waiting = deque(deliveries)
        self.alone: deque[Attempt] = deque()
        self.calling: tuple[Delivery, ...] = ()  # what the handler has now
        self.generation = deliveries[0].generation if deliveries else 0  # of its channel
        self.is_submitted = False
        self.is_abandoned = False

    def next_waiting(self) -> Delivery | None:
        """Return a delivery to begin; None if there is none."""
        with self._lock:
            return self.waiting.popleft() if self.waiting else None

    def next_alone(self) -> Attempt | None:
        """Return an attempt to go on with, alone; None if there is none."""
        with self._lock:
            return self.alone.popleft() if self.alone else None

    def add_alone(self, attempts: Sequence[Attempt]) -> bool:
        """Have *attempts* handled alone; return False if this work was abandoned."""
        with self._lock:
            if not self.is_abandoned:
                self.alone.extend(attempts)
            return not self.is_abandoned

    def abandon(self) -> Work:
        """Return what is left to do as work of its own; nothing is left here."""
        rest = Work()
        with self._lock:
            self.is_abandoned = True
            rest.waiting, self.waiting = self.waiting, deque()
            rest.alone, self.alone = self.alone, deque()
        return rest


class BatchExecutor:
    """Collects deliveries to batches, which *inner* handles: an `Executor` of deliveries.

    *call_later* calls a function on the I/O thread. *is_alone* says of a delivery that it must not
    be handled together with others.

    Threads: `submit` on the I/O thread, the rest from any.
    """

    def __init__(
        self,
        inner: Executor[Work],
        batch: Batch,
        call_later: Callable[[float, Callable[[], object]], object],
        is_alone: Callable[[Delivery], bool],
    ) -> None:
        self._inner = inner
        self.batch = batch  # as the worker was started, whatever `Worker.swap` does meanwhile
        self._call_later = call_later
        self._is_alone = is_alone
        self._lock = forks.released_in_child(threads.Lock())  # guards `_filling` and its deliveries
        self._filling: Work | None = None
        self._calling: dict[Delivery, Work] = {}  # the handler has it

    def start(self) -> None:
        """Begin to handle batches."""
        self._inner.start()

    def submit(self, delivery: Delivery) -> None:
        """Have *delivery* handled in a batch that is full, or for which it has waited enough."""
        if self._is_alone(delivery):
            self._inner.submit(Work(delivery))
            return
        with self._lock:
            work = self._filling
            is_new = work is None or work.generation != delivery.generation
            if work is None or is_new:  # what an earlier channel delivered is delivered again
                work = self._filling = Work(delivery)
            else:
                work.waiting.append(delivery)
            is_full = len(work.waiting) >= self.batch.size
            if is_full:
                self._filling = None
            is_due = is_full and not work.is_submitted
            work.is_submitted = work.is_submitted or is_full
        if is_due:
            self._inner.submit(work)
        elif is_new:
            self._call_later(self.batch.within, lambda: self._submit_filling(work))

    def _submit_filling(self, work: Work) -> None:
        """Have *work* handled as it is; it goes on filling until a thread is free."""
        with self._lock:
            if work is not self._filling:
                return  # it was full, or its channel was lost
            work.is_submitted = True
        self._inner.submit(work)

    def begin(self, work: Work) -> None:
        """Add no more deliveries to *work*."""
        with self._lock:
            if work is self._filling:
                self._filling = None

    def begin_call(self, work: Work, deliveries: Sequence[Delivery]) -> None:
        """Have *deliveries* be what the handler has."""
        work.calling = tuple(deliveries)
        self._calling.update(dict.fromkeys(deliveries, work))

    def end_call(self, work: Work) -> None:
        """The handler has returned."""
        for each in work.calling:
            self._calling.pop(each, None)
        work.calling = ()

    def together(self, delivery: Delivery) -> tuple[Delivery, ...]:
        """Return what the handler has together with *delivery*, itself included."""
        work = self._calling.get(delivery)
        return () if work is None else work.calling

    def stop(self, timeout: float) -> bool:
        """Finish what was begun, then end; say whether it ended in *timeout* s."""
        return self._inner.stop(timeout)

    def busy(self) -> list[Delivery]:
        """Return the deliveries that the handler has, without those that were abandoned."""
        return [each for each, work in list(self._calling.items()) if not work.is_abandoned]

    def abandon(self, item: Delivery) -> None:
        """Wait no longer for the call that has *item*; what it had not begun is done elsewhere."""
        work = self._calling.get(item)
        if work is None or work.is_abandoned:
            return
        rest = work.abandon()
        self._inner.abandon(work)
        if rest.waiting or rest.alone:
            self._inner.submit(rest)

    def go_on_alone(self, work: Work, attempts: Sequence[Attempt]) -> None:
        """Have *attempts* handled alone: next in *work* or, if it was abandoned, elsewhere."""
        if not work.add_alone(attempts):
            elsewhere = Work()
            elsewhere.add_alone(attempts)
            self._inner.submit(elsewhere)

    def stuck_for(self, seconds: float) -> int:
        """Return how many calls were abandoned that long ago and have not returned."""
        return self._inner.stuck_for(seconds)

    @property
    def is_idle(self) -> bool:
        """Whether fewer calls run than could."""
        return self._inner.is_idle

    @property
    def abandoned(self) -> int:
        """How many calls were abandoned."""
        return self._inner.abandoned
