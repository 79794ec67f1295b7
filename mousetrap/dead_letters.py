"""Looking at dead letters, and sending them back to where they died.

Prototyped in ``notebooks/05_failures.ipynb``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from mousetrap.errors import SettingsError
from mousetrap.job_queue import depth, peek, short_channel
from mousetrap.message import REPLAYED, Message, without_death
from mousetrap.publisher import Publisher
from mousetrap.settings import Settings
from mousetrap.topology import Queue
from mousetrap.translation import kept_properties


def dead_letters(
    queue: Queue | str, n: int = 100, settings: Settings | None = None
) -> list[Message]:
    """Look at up to *n* dead letters of *queue*; they stay where they are (see `peek`).

    Each has its `reason`, `traceback`, `attempt`, `died` and the original `body`.

    Raises:
        QueueMissing: nothing has been set up for *queue* yet.
    """
    return peek(_queue(queue).dead, n, settings)


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
    settings = settings or Settings.from_environment()
    queue = _queue(queue)
    ids = [ids] if isinstance(ids, str) else ids
    if ids is not None and "" in ids:
        raise SettingsError("an id to replay is empty: leave ids out to replay all letters")
    there = depth(queue.dead, settings).messages
    name = settings.topology.wire_name(queue.dead)
    replayed = 0
    with short_channel(settings) as channel, Publisher(settings, "replay") as publisher:
        for _ in range(there):
            if limit is not None and replayed >= limit:
                break
            method, properties, body = channel.basic_get(name)
            if method is None:
                break
            letter = Message.from_wire(body, properties.message_id, properties.headers)
            if ids is not None and not letter.id.startswith(tuple(ids)):
                continue  # unacked: it goes back when the channel closes
            headers = without_death(letter.headers) | {REPLAYED: letter.replayed + 1}
            copy = letter.again(1, headers)
            publisher.publish(copy, queue.name, properties=kept_properties(properties)).wait(
                settings.confirm_timeout + 1
            )
            channel.basic_ack(method.delivery_tag)
            replayed += 1
            on_replayed(copy)
    return replayed


def _queue(queue: Queue | str) -> Queue:
    return Queue(queue) if isinstance(queue, str) else queue
