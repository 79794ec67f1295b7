"""How a message is changed when it leaves a queue as a dead letter.

The headers are those of RabbitMQ's "Dead Letter Exchanges" guide: ``x-death`` counts by queue and
reason, newest first; ``x-first-death-*`` and ``x-last-death-*`` are text.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from mousetrap.embedded_broker.arguments import QueueArguments
from mousetrap.embedded_broker.message import DeathHistory, Message, QueuedMessage


def is_cycle(message: Message, queue: str) -> bool:
    """Whether *message* has come back to *queue* without a rejection on the way.

    The broker drops such a message, because the cycle would never end. If a consumer rejected it on
    the way, the consumer can also end the cycle, so the broker does not.
    """
    deaths = message.history.deaths if message.history else ()
    names = [death.get("queue") for death in deaths]
    if queue not in names:
        return False
    return all(death.get("reason") != "rejected" for death in deaths[: names.index(queue) + 1])


def make_dead_letter(
    queued: QueuedMessage, reason: str, queue: str, arguments: QueueArguments, now: float
) -> Message:
    """Return the message that is published to the dead-letter exchange of *queue*.

    *arguments* are those of the queue; *now* is in seconds since 1970.
    """
    message = queued.message
    history = message.history
    deaths = list(history.deaths) if history else []
    same = [
        death for death in deaths if (death.get("reason"), death.get("queue")) == (reason, queue)
    ]
    if same:
        deaths.remove(same[0])
        death = same[0] | {"count": same[0]["count"] + 1}
    else:
        death = {
            "count": 1,
            "reason": reason,
            "queue": queue,
            "time": datetime.fromtimestamp(int(now), UTC),
            "exchange": message.exchange,
            "routing-keys": message.routing_keys,
        }
        if message.has("expiration"):
            death["original-expiration"] = message.get("expiration")
    last = {"reason": reason, "queue": queue, "exchange": message.exchange}
    first = history.first if history else last
    headers: dict[str, Any] = {"x-death": [death, *deaths]}
    for name, value in last.items():
        headers[f"x-first-death-{name}"] = first[name]
        headers[f"x-last-death-{name}"] = value
    routing_key = arguments.dead_letter_routing_key
    return message.replace(
        headers=headers,
        drop_expiration=True,
        history=DeathHistory(
            (death, *deaths),
            first,
            queued.acquired_count,
            queued.delivery_count,
            is_rerouted=routing_key is not None or bool(history and history.is_rerouted),
        ),
        exchange=arguments.dead_letter_exchange or "",
        routing_key=message.routing_key if routing_key is None else routing_key,
    )
