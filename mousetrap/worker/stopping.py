"""The orderly stop of a worker: its messages are finished or given back before it closes."""

from __future__ import annotations

from mousetrap.amqp.consumer import Consumer
from mousetrap.amqp.publisher import Publisher
from mousetrap.runtime import clock
from mousetrap.worker.consumer_discovery import ConsumerDiscovery
from mousetrap.worker.processor import Processor

# Seconds after the grace period; with `STOP_TIMEOUT` of `mousetrap.runtime.signals` and an exit,
# all of them fit into the ten seconds after which container engines kill.
GIVE_BACK_TIMEOUT = 1.5  # for the broker to confirm the messages that are given back
WORKER_CLOSE_TIMEOUT = 0.5  # for each of the two connections
CONSUMER_CANCEL_TIMEOUT = 1.0  # for the broker to say that it delivers no more
CONSUMERS_ASK_TIMEOUT = 0.4  # for the broker, then other workers, to say whether they do


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
    """
    started = clock.monotonic()
    deadline = started + timeout
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
    by_copy = process_ends or _others_consume(consumer, discovery, processor.in_progress)
    may_be_quorum = process_ends or consumer.settings.queue_type == "quorum"
    # no message may arrive while the others are finished
    consumer.cancel(on_cancelled, is_quorum=may_be_quorum)
    discovery.stop_answering()
    connection.call(lambda: processor.give_back.all_waiting(by_copy=by_copy))
    have_returned = processor.executor.stop(timeout)
    # before closing: a message whose output is unconfirmed is not acked
    processor.changed.wait_for(is_done, clock.remaining(deadline))
    left = 0
    if not (have_returned and is_done()):
        connection.call(processor.give_back.all_begun)
        processor.changed.wait_for(is_done, GIVE_BACK_TIMEOUT)
        left = processor.in_progress
    consumer.close(max(WORKER_CLOSE_TIMEOUT, clock.remaining(deadline)))
    publisher.close(max(WORKER_CLOSE_TIMEOUT, clock.remaining(deadline)))
    return left


def _others_consume(consumer: Consumer, discovery: ConsumerDiscovery, in_progress: int) -> bool:
    """Return whether a worker of another process consumes the queue, too.

    Not asked if there is nothing to give back. The broker's number alone is not enough: a quorum
    queue still counts a consumer for a moment after it was cancelled.
    """
    if consumer.unacked <= in_progress:
        return False
    others = (consumer.count(CONSUMERS_ASK_TIMEOUT) or 0) - discovery.consumers_here
    return others > 0 and bool(discovery.ask(others, CONSUMERS_ASK_TIMEOUT))
