"""Asks RabbitMQ's management plugin, where there is one, for what AMQP cannot say.

A retry queue whose work queue is full, or gone, keeps the messages whose delay is over. AMQP counts
them nowhere: a passive declare returns 0 for them. The plugin calls them ``messages_dlx``.
"""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Collection, Iterable
from urllib.parse import quote

from mousetrap.display.formats import counted
from mousetrap.model.delays import delayed_target
from mousetrap.model.topology import Queue, work_queue_of
from mousetrap.runtime import clock
from mousetrap.settings import Settings

PORT_DISTANCE = 10_000  # from the port of AMQP, 5672, to that of the plugin, 15672
MANAGEMENT_TIMEOUT = 2.0  # seconds for all questions of one call
MAX_PORT = 65_535
MAX_ANSWER = 1_000_000  # bytes of an answer that are read; that of one queue has a few thousand
# Seconds after which RabbitMQ has sent a refused dead letter again. Its timer ends each 180 seconds
# (the default) and sends what was refused at least 180 seconds ago; the rest waits another turn.
RETURN_TIME = 360


def held_back(
    queues: Iterable[str], settings: Settings, timeout: float = MANAGEMENT_TIMEOUT
) -> dict[str, int]:
    """Return how many messages each of *queues* holds that its work queue has not accepted.

    Queues that hold none are left out, and so is what cannot be asked: there is no such plugin on
    the port that is `PORT_DISTANCE` above AMQP's, the user may not use it, or it does not answer
    within *timeout* seconds. With TLS it is not asked, because it would need a port and
    a certificate of its own. RabbitMQ updates the number every five seconds. Raises nothing.
    Threads: any.
    """
    found: dict[str, int] = {}
    if settings.tls or settings.port + PORT_DISTANCE > MAX_PORT:
        return found
    deadline = clock.monotonic() + timeout
    connection: http.client.HTTPConnection | None = None
    try:
        for queue in queues:
            if not (left := clock.remaining(deadline)):
                break
            if connection is None:
                connection = http.client.HTTPConnection(
                    settings.host, settings.port + PORT_DISTANCE, timeout=left / 2
                )
            if number := _held_back(connection, settings.topology.wire_name(queue), settings):
                found[queue] = number
    except (OSError, http.client.HTTPException, ValueError):
        pass  # there is no plugin, or it does not answer
    finally:
        if connection is not None:
            connection.close()
    return found


def _held_back(connection: http.client.HTTPConnection, name: str, settings: Settings) -> int:
    login = base64.b64encode(f"{settings.user}:{settings.password}".encode()).decode()
    path = f"/api/queues/{quote(settings.vhost, safe='')}/{quote(name, safe='')}"
    connection.request("GET", path, headers={"Authorization": f"Basic {login}"})
    with connection.getresponse() as answer:
        body = answer.read(MAX_ANSWER)
    if answer.status != http.client.OK:
        return 0
    queue = json.loads(body)
    number = queue.get("messages_dlx") if isinstance(queue, dict) else None
    return number if isinstance(number, int) else 0


def held_back_lines(queues: Collection[str], settings: Settings) -> list[str]:
    """Return a sentence for each retry queue among *queues* that holds such messages.

    Those with the default delays are looked at for every work queue. Raises nothing.
    """
    names = [name for name in queues if ".retry." in name or delayed_target(name)]
    names += [retry for name in queues if work_queue_of(name) is None
              for retry in Queue(name).retry_queues()]  # fmt: skip
    return [
        f"{name}: {counted(number, 'message')} past the delay, but {work_queue_of(name)!r} is "
        f"full, refuses them or does not exist; they come back up to {RETURN_TIME} s after "
        f"there is room (RabbitMQ's timer)"
        for name, number in held_back(dict.fromkeys(names), settings).items()
    ]
