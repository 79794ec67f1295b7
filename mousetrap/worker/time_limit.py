"""The time limit of handlers, and what happens to a handler that does not return.

A handler that exceeds the limit has failed: its message is retried or dead-lettered like after any
other error, and what the handler returns later is dropped. Another thread takes its place. Python
cannot end a thread, so a worker whose handlers keep hanging has to end.
"""

from __future__ import annotations

from collections.abc import Callable

from mousetrap.amqp.delivery import Delivery
from mousetrap.errors import HandlersStuck
from mousetrap.model.poison_messages import MAX_ACK_TIMEOUTS
from mousetrap.runtime import clock
from mousetrap.worker.executors import ALL_STUCK, Executor

MIN_CHECK_INTERVAL = 0.05  # seconds between two checks of the limit
STUCK_DELAY = 1.0  # seconds in which an abandoned handler may still end; a guess


class TimeLimit:
    """Checks the limit of the handlers that *executor* runs; *limit* is in seconds, or None.

    *call_later* calls a function on the I/O thread. *time_out* is called with the delivery of a
    handler that exceeded the limit, *make_void* with one whose ack has timed out; they return False
    if the handler has returned, and its thread waits for the broker. *on_stuck* is called with the
    error when no handler can go on.

    Threads: the I/O thread; a handler that hangs cannot delay it.
    """

    def __init__(
        self,
        limit: float | None,
        concurrency: int,
        executor: Executor[Delivery],
        *,
        call_later: Callable[[float, Callable[[], object]], object],
        time_out: Callable[[Delivery], bool],
        make_void: Callable[[Delivery], bool],
        on_stuck: Callable[[HandlersStuck], object],
    ) -> None:
        self.limit = limit
        self._concurrency = concurrency
        self._executor = executor
        self._call_later = call_later
        self._time_out = time_out
        self._make_void = make_void
        self._on_stuck = on_stuck

    def start(self) -> None:
        """Check the limit from now on."""
        if self.limit is not None:
            self._call_later(self.limit, self._check)

    def _check(self) -> None:
        assert self.limit is not None
        now, next_check, has_abandoned = clock.monotonic(), self.limit, False
        for delivery in self._executor.busy():
            if delivery.handling_started is None:
                continue
            left = delivery.handling_started + self.limit - now
            if left > 0:
                next_check = min(next_check, left)
            elif self._time_out(delivery):
                self._executor.abandon(delivery)
                has_abandoned = True
        if has_abandoned:
            self._call_later(STUCK_DELAY, lambda: self._check_stuck(self._concurrency))
        self._call_later(max(MIN_CHECK_INTERVAL, next_check), self._check)

    def replace_timed_out(self) -> None:
        """Abandon the handlers whose ack has timed out: their messages are delivered again.

        What they return later is dropped. A message that times out `MAX_ACK_TIMEOUTS` times leaves
        as many handlers behind before it is dead-lettered, so more of them are accepted than after
        the limit.
        """
        timed_out = [
            each
            for each in self._executor.busy()
            if each.has_ack_timed_out and self._make_void(each)
        ]
        for delivery in timed_out:
            self._executor.abandon(delivery)
        if timed_out:
            most = MAX_ACK_TIMEOUTS * self._concurrency + 1
            self._call_later(STUCK_DELAY, lambda: self._check_stuck(most))

    def _check_stuck(self, most: int) -> None:
        # not those that were abandoned just now: they may only be slow
        stuck = self._executor.stuck_for(0.9 * STUCK_DELAY)
        if stuck >= most:
            what = (
                "a coroutine blocks the event loop: it waits without await"
                if stuck == ALL_STUCK
                else f"{stuck} handler{'s were' if stuck > 1 else ' was'} given up and still "
                f"run{'' if stuck > 1 else 's'}"
            )
            self._on_stuck(
                HandlersStuck(
                    f"{what}, so the worker ends and gives its messages back: give what the "
                    f"handler waits for a time-out of its own, or make the handler `async def`, "
                    f"which can be cancelled; a higher concurrency lets more of them hang, and "
                    f"mousetrap work --processes replaces a worker that ended so"
                )
            )
