"""The orderly stop of a worker: its messages are finished or given back before it closes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mousetrap.amqp.connection import CLOSE_HANDSHAKE_TIMEOUT
from mousetrap.amqp.consumer import Consumer
from mousetrap.amqp.publisher import Publisher
from mousetrap.runtime import clock, threads
from mousetrap.worker.consumer_discovery import ConsumerDiscovery
from mousetrap.worker.processor import Processor

# Seconds after the time-out until a stop has returned, whatever the broker does: first for the
# broker to confirm the messages that are given back, then for both connections to close.
GIVE_BACK_TIMEOUT = 0.6
# The same if the process ends: another process then receives what was not given back, and counts it
# as lost. With `STOP_TIMEOUT` of `mousetrap.runtime.signals` and the exit, it fits into the ten
# seconds after which container engines kill.
FINAL_GIVE_BACK_TIMEOUT = 1.5
MIN_CLOSE_TIMEOUT = 0.05  # for a connection, after the other one took all the time
CONSUMER_CANCEL_TIMEOUT = 1.0  # for the broker to say that it delivers no more
# for the broker, then other workers, to say whether they consume; the shorter one if the time-out
# is shorter
CONSUMERS_ASK_TIMEOUT, SHORT_ASK_TIMEOUT = 0.8, 0.25


def finish(
    processor: Processor,
    consumer: Consumer,
    publisher: Publisher,
    discovery: ConsumerDiscovery,
    timeout: float,
    *,
    process_ends: bool,
) -> int:
    """Stop what these parts of a worker do; return how many messages were left unacked in progress.

    Messages in progress have *timeout* seconds to finish; those that have not are then given back
    (see `mousetrap.worker.give_back`). Messages that were not begun are given back at once if
    another process may receive them next: when *process_ends*, or when another one consumes now.

    Returns at most `GIVE_BACK_TIMEOUT` and `CLOSE_HANDSHAKE_TIMEOUT` seconds after *timeout*,
    whatever the broker does; with *process_ends* the first is `FINAL_GIVE_BACK_TIMEOUT`.
    """
    started = clock.monotonic()
    deadline = started + timeout
    give_back_end = deadline + (FINAL_GIVE_BACK_TIMEOUT if process_ends else GIVE_BACK_TIMEOUT)
    end = give_back_end + CLOSE_HANDSHAKE_TIMEOUT
    ask_end = min(started + CONSUMERS_ASK_TIMEOUT, max(deadline, started + SHORT_ASK_TIMEOUT))
    connection = consumer.connection
    is_cancelled = False

    def on_cancelled() -> None:
        nonlocal is_cancelled
        is_cancelled = True
        processor.changed.notify_all()

    def is_done() -> bool:
        # Without its channel every message is delivered again: to wait would be of no use.
        if processor.publications.has_failed or not connection.is_open:
            return True
        if processor.in_progress:
            return False
        # what is still on its way is to be given back, too
        return is_cancelled or clock.monotonic() > started + CONSUMER_CANCEL_TIMEOUT

    processor.stop()
    publisher.count_confirms()  # or what is confirmed would be given back as well
    by_copy = process_ends or _others_consume(consumer, discovery, processor.in_progress, ask_end)
    may_be_quorum = process_ends or connection.declarer.may_be_quorum(consumer.queue)
    # no message may arrive while the others are finished
    consumer.cancel(on_cancelled, is_quorum=may_be_quorum)
    discovery.stop_answering()
    connection.call(lambda: processor.give_back.all_waiting(by_copy=by_copy))
    have_returned = processor.executor.stop(clock.remaining(deadline))
    # before closing: a message whose output is unconfirmed is not acked
    processor.changed.wait_for(is_done, clock.remaining(deadline))
    left = 0
    if not (have_returned and is_done()):
        connection.call(processor.give_back.all_begun)
        processor.changed.wait_for(is_done, clock.remaining(give_back_end))
        left = processor.in_progress
    consumer.close(0.0)  # without a wait, so that both close at the same time
    publisher.close(clock.remaining(end - CLOSE_HANDSHAKE_TIMEOUT))
    consumer.close(max(MIN_CLOSE_TIMEOUT, clock.remaining(end)))
    return left


@contextmanager
def one_at_a_time(lock: threads.Lock, timeout: float, queue: str) -> Iterator[None]:
    """Hold *lock*, so that one thread at a time stops the worker of *queue* in the block.

    Raises:
        TimeoutError: another thread held it until after *timeout* seconds.
    """
    if not lock.acquire(timeout=timeout + GIVE_BACK_TIMEOUT):
        raise TimeoutError(
            f"another thread has been stopping the worker of {queue!r} for over {timeout:g} s: "
            f"wait longer (timeout=), or find out why its handler does not return"
        )
    try:
        yield
    finally:
        lock.release()


def _others_consume(
    consumer: Consumer, discovery: ConsumerDiscovery, in_progress: int, end: float
) -> bool:
    """Return whether a worker of another process consumes the queue, too; waits until *end*.

    Not asked if there is nothing to give back. The broker's number alone is not enough: a quorum
    queue still counts a consumer for a moment after it was cancelled.
    """
    if consumer.unacked <= in_progress:
        return False
    others = (consumer.count(clock.remaining(end)) or 0) - discovery.consumers_here
    return others > 0 and bool(discovery.ask(others, clock.remaining(end)))
