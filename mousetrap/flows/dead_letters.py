"""Looking at dead letters, and sending them back to where they died.

Prototyped in ``notebooks/05_failures.ipynb``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress

from mousetrap.amqp.error_translation import PIKA_ERRORS
from mousetrap.amqp.properties import kept_properties
from mousetrap.amqp.publisher import Publisher
from mousetrap.errors import BrokerUnreachable, SettingsError
from mousetrap.flows.stage import queue_of
from mousetrap.job_queue import Got, depth, peek, requeue, short_channel
from mousetrap.model.message import REPLAYED, Message, without_failure_headers
from mousetrap.model.message_list import Messages
from mousetrap.model.topology import Queue
from mousetrap.settings import Settings


def dead_letters(queue: Queue | str, n: int = 100, settings: Settings | None = None) -> Messages:
    """Look at up to *n* dead letters of *queue*; they stay where they are (see `peek`).

    Each has its `reason`, `traceback`, `attempt`, `died` and the original `body`.

    Raises:
        QueueMissing: nothing has been set up for *queue* yet.
    """
    return peek(queue_of(queue).dead, n, settings)


def replay(
    queue: Queue | str,
    *,
    limit: int | None = None,
    ids: Collection[str] | None = None,
    settings: Settings | None = None,
    on_replayed: Callable[[Message], object] = lambda _: None,
) -> int:
    """Send dead letters of *queue* back to it, as a first attempt; return how many.

    Only those that are there at the start are looked at, at most *limit* of them, and with *ids*
    only those whose id starts with one of them; the others stay. A letter leaves the dead queue
    after the broker has confirmed its copy, so an interruption may double it, never lose it. The
    copy keeps its id and carries how often it was replayed.

    Raises:
        SettingsError: an id is empty: every id starts with that.
        QueueMissing: nothing has been set up for *queue* yet.
        PublishError: a copy did not verifiably arrive; its letter stays.
    """
    starts = None if ids is None else tuple([ids] if isinstance(ids, str) else ids)
    if starts is not None and "" in starts:
        raise SettingsError("an id to replay is empty: leave ids out to replay all letters")

    def pick(letter: Message) -> Message | None:
        return letter if starts is None or letter.id.startswith(starts) else None

    return send_back(queue, pick, limit=limit, settings=settings, on_replayed=on_replayed)


def send_back(
    queue: Queue | str,
    pick: Callable[[Message], Message | None],
    *,
    limit: int | None = None,
    settings: Settings | None = None,
    on_replayed: Callable[[Message], object] = lambda _: None,
) -> int:
    """Do what `replay` does for those letters of *queue* that *pick* returns; None: it stays.

    *pick* may return another body than the letter had. Raises what `replay` raises.
    """
    settings = settings or Settings.from_environment()
    queue = queue_of(queue)
    there = depth(queue.dead, settings).messages
    name = settings.topology.wire_name(queue.dead)
    replayed = 0
    staying: list[Got] = []
    with short_channel(settings) as channel, Publisher(settings, "replay") as publisher:
        try:
            for _ in range(there):
                if limit is not None and replayed >= limit:
                    break
                method, properties, body = channel.basic_get(name)
                if method is None:
                    break
                letter = Message.from_wire(body, properties)
                if (picked := pick(letter)) is None:
                    staying.append((method, properties, body))
                    continue
                headers = without_failure_headers(picked.headers) | {REPLAYED: letter.replayed + 1}
                copy = picked.copy(1, headers)
                publisher.publish(copy, queue.name, properties=kept_properties(properties)).wait(
                    settings.confirm_timeout + 1
                )
                channel.basic_ack(method.delivery_tag)
                replayed += 1
                on_replayed(copy)
        finally:
            # a broken channel has given them back by itself
            with suppress(*PIKA_ERRORS, BrokerUnreachable):
                requeue(channel, queue.dead, staying, settings)
    return replayed
