"""Asks the workers of a namespace what they hold and may hold, over a connection of its own.

For commands that look once. A run keeps its connection and asks again and again (see
`mousetrap.runs.holders`).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from mousetrap.amqp.properties import request_properties
from mousetrap.errors import UndecodableMessage, WireError
from mousetrap.job_queue import short_channel
from mousetrap.model.decoding import decode
from mousetrap.runtime import clock, randomness
from mousetrap.settings import Settings
from mousetrap.worker.consumer_discovery import DISCOVERY_TIMEOUT, QUERY_TTL, held_reply_stem
from mousetrap.worker.discovery_messages import HeldAnswer, HeldQuery

POLL_INTERVAL = 0.01  # seconds between two looks for an answer


@dataclass(frozen=True)
class WorkerLoad:
    """What the workers of a queue hold together, by the answers of those that answered."""

    answered: int = 0  # workers
    held: int = 0  # messages that they have received and not acked
    least: int = 0  # messages that the worker with the smallest prefetch may hold
    most: int = 0  # the same of the one with the largest


def worker_loads(
    consumers: Mapping[str, int], settings: Settings, timeout: float = DISCOVERY_TIMEOUT
) -> dict[str, WorkerLoad]:
    """Return what the workers of each queue hold; nothing where they cannot be asked.

    *consumers* are the numbers of consumers that the broker counts, by the queue's name on the
    wire. Returns when as many workers have answered, or after *timeout* seconds, because a consumer
    of another library never answers. An empty answer: events are switched off, or the user may
    not declare the queue for the answers.
    """
    topology = settings.topology
    if not topology.events_exchange or not any(consumers.values()):
        return {}
    answers: dict[str, HeldAnswer] = {}
    deadline = clock.monotonic() + timeout
    with suppress(WireError), short_channel(settings, timeout + DISCOVERY_TIMEOUT) as channel:
        own = f"{held_reply_stem(settings)}{randomness.new_id()}"
        channel.queue_declare(own, exclusive=True, auto_delete=True)
        channel.basic_publish(
            topology.events_exchange,
            topology.discovery_key,
            msgspec.json.encode(HeldQuery(0)),
            request_properties(own, QUERY_TTL),
        )
        while clock.remaining(deadline) and _are_missing(consumers, answers):
            _, _, body = channel.basic_get(own, auto_ack=True)
            if body is None:
                clock.sleep(POLL_INTERVAL)
                continue
            with suppress(UndecodableMessage):  # a message of another program
                answer: HeldAnswer = decode(body, HeldAnswer)
                answers[answer.worker] = answer
    return {queue: _load(queue, answers) for queue in consumers}


def _are_missing(consumers: Mapping[str, int], answers: Mapping[str, HeldAnswer]) -> bool:
    return any(
        sum(each.queue == queue for each in answers.values()) < number
        for queue, number in consumers.items()
    )


def _load(queue: str, answers: Mapping[str, HeldAnswer]) -> WorkerLoad:
    found = [each for each in answers.values() if each.queue == queue]
    prefetches = [each.prefetch for each in found if each.prefetch]
    return WorkerLoad(
        len(found),
        sum(each.held for each in found),
        min(prefetches, default=0),
        max(prefetches, default=0),
    )
