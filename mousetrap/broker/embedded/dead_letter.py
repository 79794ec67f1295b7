"""What a message looks like when it leaves a queue as a dead letter.

The headers are those of RabbitMQ's "Dead Letter Exchanges" guide: ``x-death`` counts by queue and
reason, newest first; ``x-first-death-*`` and ``x-last-death-*`` are text.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from mousetrap.broker.embedded.message import Message
from mousetrap.broker.embedded.queue import Entry, Queue


def deaths(message: Message) -> list[dict[str, Any]]:
    """Return the ``x-death`` of a message; whatever else somebody wrote there counts as none."""
    found = message.headers.get("x-death")
    if not isinstance(found, list):
        return []
    return [each for each in found if isinstance(each, dict)]


def is_cycle(message: Message, queue: str) -> bool:
    """Whether it comes back to *queue* by itself: it is dropped, else it would go on for ever.

    A rejection in the cycle is somebody's decision, so that cycle may go on.
    """
    found = deaths(message)
    names = [each.get("queue") for each in found]
    if queue not in names:
        return False
    return all(each.get("reason") != "rejected" for each in found[: names.index(queue) + 1])


def letter(queue: Queue, entry: Entry, reason: str, now: float) -> Message:
    """Return the message as it is published to the queue's dead-letter exchange."""
    message = entry.message
    keys = [message.routing_key]
    for name in ("CC", "BCC"):
        more = message.headers.get(name)
        keys += [each for each in more if isinstance(each, str)] if isinstance(more, list) else []
    history = deaths(message)
    place = {"reason": reason, "queue": queue.name}
    same = [each for each in history if {name: each.get(name) for name in place} == place]
    if same:
        history.remove(same[0])
        count = same[0].get("count")
        death = same[0] | {"count": count + 1 if isinstance(count, int) else 1}
    else:
        death = {
            "count": 1,
            **place,
            "time": datetime.fromtimestamp(int(now), UTC),
            "exchange": message.exchange,
            "routing-keys": keys,
        }
        if message.has("expiration"):
            death["original-expiration"] = message.get("expiration")
    headers: dict[str, Any] = {"x-death": [death, *history]}
    facts = {"reason": reason, "queue": queue.name, "exchange": message.exchange}
    for name, value in facts.items():
        headers[f"x-last-death-{name}"] = value
        if f"x-first-death-{name}" not in message.headers:
            headers[f"x-first-death-{name}"] = value
    routing_key = queue.arguments.dead_letter_routing_key
    if routing_key is not None:
        headers["CC"] = None  # another routing key was asked for: only that one
    return message.but(
        headers=headers,
        drop_expiration=True,
        exchange=queue.arguments.dead_letter_exchange or "",
        routing_key=message.routing_key if routing_key is None else routing_key,
    )
