"""What a message looks like when it leaves a queue as a dead letter.

The headers are those of RabbitMQ's "Dead Letter Exchanges" guide: ``x-death`` counts by queue and
reason, newest first; ``x-first-death-*`` and ``x-last-death-*`` are text.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from mousetrap.embedded_broker.message import Message, Past
from mousetrap.embedded_broker.queue import Entry, Queue


def is_cycle(message: Message, queue: str) -> bool:
    """Whether it comes back to *queue* by itself: it is dropped, else it would go on for ever.

    A rejection in the cycle is somebody's decision, so that cycle may go on.
    """
    found = message.past.deaths if message.past else ()
    names = [each.get("queue") for each in found]
    if queue not in names:
        return False
    return all(each.get("reason") != "rejected" for each in found[: names.index(queue) + 1])


def letter(queue: Queue, entry: Entry, reason: str, now: float) -> Message:
    """Return the message as it is published to the queue's dead-letter exchange."""
    message = entry.message
    past = message.past
    history = list(past.deaths) if past else []
    place = {"reason": reason, "queue": queue.name}
    same = [each for each in history if {name: each.get(name) for name in place} == place]
    if same:
        history.remove(same[0])
        death = same[0] | {"count": same[0]["count"] + 1}
    else:
        death = {
            "count": 1,
            **place,
            "time": datetime.fromtimestamp(int(now), UTC),
            "exchange": message.exchange,
            "routing-keys": message.routing_keys,
        }
        if message.has("expiration"):
            death["original-expiration"] = message.get("expiration")
    facts = {"reason": reason, "queue": queue.name, "exchange": message.exchange}
    first = past.first if past else facts
    headers: dict[str, Any] = {"x-death": [death, *history]}
    for name, value in facts.items():
        headers[f"x-first-death-{name}"] = first[name]
        headers[f"x-last-death-{name}"] = value
    routing_key = queue.arguments.dead_letter_routing_key
    is_rerouted = routing_key is not None or bool(past and past.is_rerouted)
    return message.but(
        headers=headers,
        drop_expiration=True,
        past=Past((death, *history), first, entry.acquired, entry.deliveries, is_rerouted),
        exchange=queue.arguments.dead_letter_exchange or "",
        routing_key=message.routing_key if routing_key is None else routing_key,
    )
