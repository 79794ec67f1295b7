"""Poison messages: what happens to a message whose worker was lost, or whose ack timed out.

A message that crashes its worker never raises an error that `mousetrap.model.retry_policy` could
decide on: the broker only redelivers it. Such redeliveries are therefore counted in a header of
ours; the worker publishes a copy with the new count, acks the original, and handles the copy when
that is delivered. Decisions only; nothing here talks to a broker.
"""

from __future__ import annotations

from dataclasses import dataclass

from mousetrap.errors import AckTimedOut, WorkerLost
from mousetrap.model.headers import LOSSES, TIMEOUTS, kept_headers
from mousetrap.model.message import Message
from mousetrap.model.topology import Queue

ALONE_FROM = 2  # lost workers at which a message moves to the quarantine queue, to be handled alone
MAX_LOSSES = 6  # lost workers at which a message is dead-lettered; see `after_loss`
MAX_ACK_TIMEOUTS = 3  # ack timeouts at which a message is dead-lettered; see `after_ack_timeout`


@dataclass(frozen=True)
class Move:
    """The copy to publish in place of a message, and the queue to publish it to."""

    copy: Message
    target: str  # plain name


def after_loss(message: Message, queue: Queue) -> Move | WorkerLost:
    """Decide what happens to *message*, whose worker was lost; an error means: dead-letter it.

    The broker says only that the message was delivered before: not to which worker, and not whether
    the worker had begun it. So a redelivery counts as one loss, in a header of ours, and the
    message is published again with the new count:

    - The first loss may have any cause: the message goes back to its queue.
    - From `ALONE_FROM` losses on it goes to the quarantine queue. Each worker takes one message at
      a time from there, so that no possible poison message waits behind another.
    - At `MAX_LOSSES` losses it is dead-lettered.

    One crashing message can add at most `ALONE_FROM` losses to another message; after that it is
    handled alone. `MAX_LOSSES` is three times as many, so one or two crashing messages cannot get a
    harmless one dead-lettered. A redelivery does not count if the process that held the message
    before is alive: this one (see `mousetrap.amqp.redeliveries`) or another one, which is asked
    from the second loss on (see `mousetrap.worker.loss_queries`). Nor does it count if the message,
    from the quarantine queue, only waited in a worker that stopped normally (see `uncounted`).
    """
    losses = message.losses + 1
    if losses >= MAX_LOSSES:
        return WorkerLost(
            f"{losses} workers were lost while they had this message: it may be what crashes them "
            f"(a crash, os._exit, too much memory)"
        )
    target = queue.quarantine if losses >= ALONE_FROM else queue.name
    return Move(_copy(message, losses, message.timeouts), target)


def is_first_loss(losses: int) -> bool:
    """Say whether a message that was lost *losses* times before stays in its queue once more.

    Nothing follows from such a loss, so it is counted at once, whatever its cause.
    """
    return losses + 1 < ALONE_FROM


def after_ack_timeout(message: Message, queue: Queue) -> Move | AckTimedOut:
    """Decide what happens to *message*, which its worker did not ack within the broker's time-out.

    The worker is alive and knows which message it was. The message is handled again from the
    quarantine queue, where no other message waits behind it; at `MAX_ACK_TIMEOUTS` time-outs it is
    dead-lettered.
    """
    timeouts = message.timeouts + 1
    if timeouts >= MAX_ACK_TIMEOUTS:
        return AckTimedOut(
            f"{timeouts} times its handling took longer than the broker waits for an ack "
            f"(consumer_timeout): it hangs, or it needs a higher limit"
        )
    return Move(_copy(message, message.losses, timeouts), queue.quarantine)


def after_batch_timeout(message: Message, queue: Queue) -> Move:
    """Return the move of a *message* of a batch that took longer than the time limit of its stage.

    Any one of them may be why. Each is handled alone, from the quarantine queue; there the limit
    holds for it alone. It counts as one time-out, which keeps it out of further batches.
    """
    return Move(_copy(message, message.losses, max(1, message.timeouts)), queue.quarantine)


def uncounted(message: Message, queue: Queue) -> Move:
    """Return the move of a *message* whose delivery is not counted as a loss: the counts stay.

    For the broker the copy is a new message, with no deliveries so far. So a quorum queue does not
    drop it at its delivery limit, and its next delivery is not marked as a redelivery.
    """
    target = queue.quarantine if is_handled_alone(message) else queue.name
    return Move(_copy(message, message.losses, message.timeouts), target)


def is_handled_alone(message: Message) -> bool:
    """Say whether *message* belongs in the quarantine queue."""
    return message.losses >= ALONE_FROM or message.timeouts > 0


def _copy(message: Message, losses: int, timeouts: int) -> Message:
    counts = {LOSSES: losses, TIMEOUTS: timeouts}
    headers = kept_headers(message.headers) | {
        name: count for name, count in counts.items() if count
    }
    return message.copy(message.attempt, headers)
