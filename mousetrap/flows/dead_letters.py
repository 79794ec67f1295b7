"""Reads the dead letters of a queue, and sends them back to it.

Prototyped in ``notebooks/05_failures.ipynb``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress

from mousetrap.amqp.error_translation import PIKA_ERRORS
from mousetrap.amqp.properties import kept_properties
from mousetrap.amqp.publisher import Publisher
from mousetrap.amqp.queue_reader import GotMessage, requeue
from mousetrap.display.formats import counted
from mousetrap.errors import BrokerUnreachable, SettingsError
from mousetrap.flows.stage import queue_of
from mousetrap.job_queue import ANSWERS_TIMEOUT, depth, peek, short_channel
from mousetrap.model.headers import REPLAYED, without_failure_headers
from mousetrap.model.message import Message
from mousetrap.model.message_list import Messages
from mousetrap.model.topology import Queue
from mousetrap.runtime.postponed_interrupts import postponed
from mousetrap.settings import Settings


def dead_letters(
    queue: Queue | str,
    n: int = 100,
    settings: Settings | None = None,
    *,
    timeout: float = ANSWERS_TIMEOUT,
) -> Messages:
    """Return up to *n* dead letters of *queue*; they stay in the dead queue (see `peek`).

    Each has a `reason`, `traceback`, `attempt`, `dead_since` and the original `body`.

    Raises:
        QueueMissing: there is no such queue.
        BrokerUnreachable, ConnectionLost: the broker did not answer within *timeout* seconds.
    """
    return peek(queue_of(queue).dead, n, settings, timeout=timeout)


def replay(
    queue: Queue | str,
    *,
    limit: int | None = None,
    ids: Collection[str] | None = None,
    settings: Settings | None = None,
    on_replayed: Callable[[Message], object] = lambda _: None,
) -> int:
    """Send dead letters of *queue* back to it, as first attempts; return how many.

    At most *limit* messages, and with *ids* only messages whose id begins with one of them. The
    others stay, and so do messages that die while this runs. A dead letter is removed from the dead
    queue after the broker has confirmed its copy, so an interruption may duplicate a message but
    never loses one. The copy keeps the id, and a header of it counts the replays.

    Raises:
        SettingsError: an id is empty, which would select every message.
        QueueMissing: there is no such queue.
        PublishError: the broker did not confirm a copy; its dead letter stays.
        BrokerUnreachable, ConnectionLost: the broker did not answer within
            ``settings.confirm_timeout`` seconds; the dead letters that were not sent back stay.
        KeyboardInterrupt: between two dead letters. If the broker does not confirm the copy of one
            within half a second, that one stays, and may be in *queue* as well.

    ``replayed`` of an exception has the ids of the dead letters that were sent back before.
    """
    starts = None if ids is None else tuple([ids] if isinstance(ids, str) else ids)
    if starts is not None and "" in starts:
        raise SettingsError("an id to replay is empty: leave ids out to replay all dead letters")

    def pick(message: Message) -> Message | None:
        return message if starts is None or message.id.startswith(starts) else None

    return send_back(queue, pick, limit=limit, settings=settings, on_replayed=on_replayed)


def send_back(
    queue: Queue | str,
    pick: Callable[[Message], Message | None],
    *,
    limit: int | None = None,
    settings: Settings | None = None,
    on_replayed: Callable[[Message], object] = lambda _: None,
) -> int:
    """Call *pick* with each dead letter of *queue*, and send what it returns back to *queue*.

    A dead letter for which *pick* returns None stays. *pick* may return a message with another
    body. Works and raises as `replay` does.
    """
    replayed: list[str] = []

    def count(copy: Message) -> None:
        replayed.append(copy.id)
        on_replayed(copy)

    try:
        _send_back(queue, pick, limit, settings or Settings.from_environment(), count)
    except BaseException as error:
        attach_replayed(error, replayed)
        raise
    return len(replayed)


def _send_back(
    queue: Queue | str,
    pick: Callable[[Message], Message | None],
    limit: int | None,
    settings: Settings,
    on_replayed: Callable[[Message], object],
) -> None:
    queue = queue_of(queue)
    timeout = settings.confirm_timeout
    there = depth(queue.dead, settings, timeout=timeout).messages
    name = settings.topology.wire_name(queue.dead)
    replayed = 0
    staying: list[GotMessage] = []
    with (
        postponed() as interrupts,
        short_channel(settings) as channel,
        _publisher(settings) as publisher,
    ):
        try:
            for _ in range(there):
                if limit is not None and replayed >= limit:
                    break
                interrupts.deliver()  # here every copy has its outcome
                method, properties, body = channel.basic_get(name)
                if method is None:
                    break
                dead_letter = Message.from_wire(body, properties)
                if (picked := pick(dead_letter)) is None:
                    staying.append((method, properties, body))
                    continue
                headers = without_failure_headers(picked.headers)
                headers[REPLAYED] = dead_letter.replayed + 1
                copy = picked.copy(1, headers)
                kept = kept_properties(properties)
                kept.content_encoding = copy.content_encoding  # a body that was edited has none
                receipt = publisher.publish(copy, queue.name, properties=kept)
                receipt.wait(timeout + 1)
                channel.basic_ack(method.delivery_tag)
                replayed += 1
                on_replayed(copy)
        finally:
            # if the channel is closed, the broker has already requeued the messages that stay
            if channel.is_open:
                with suppress(*PIKA_ERRORS, BrokerUnreachable):
                    requeue(channel, queue.dead, staying, settings)


def attach_replayed(error: BaseException, ids: list[str]) -> None:
    """Attach the *ids* of the dead letters that were sent back before *error*, and a note."""
    if ids and "replayed" not in vars(error):
        error.add_note(
            f"sent back before this: {counted(len(ids), 'dead letter')}, whose ids are in "
            f"`replayed` of this exception (in a notebook: sys.last_value.replayed)"
        )
    vars(error)["replayed"] = ids


@contextmanager
def _publisher(settings: Settings) -> Iterator[Publisher]:
    """Open a publisher; after an error it is closed without a wait for a silent broker."""
    publisher = Publisher(settings, "replay").open()
    try:
        yield publisher
    except BaseException:
        publisher.close(0.3)
        raise
    publisher.close()
