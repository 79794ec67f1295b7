"""Asks the workers of a run, in whatever process they are, how many messages each of them holds.

A message that a worker has prefetched or handles is in no queue's depth, and the ledger knows it
only if it was sent by the run or by a handler. So a run asks: one query on the events exchange
reaches every worker of its namespace (see `mousetrap.worker.consumer_discovery`). A consumer of
another library never answers, and what it holds cannot be known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec

from mousetrap import job_queue
from mousetrap.amqp.exclusive_queue import ExclusiveQueue
from mousetrap.amqp.properties import request_properties
from mousetrap.amqp.publisher import Publisher
from mousetrap.display.formats import counted
from mousetrap.display.safe_text import safe
from mousetrap.errors import MousetrapError, QueueMissing, UndecodableMessage, WireError
from mousetrap.model.decoding import decode
from mousetrap.runtime import clock
from mousetrap.runtime.interrupt import Waiter
from mousetrap.settings import Settings
from mousetrap.worker.consumer_discovery import DISCOVERY_TIMEOUT, QUERY_TTL, held_reply_stem
from mousetrap.worker.discovery_messages import HeldAnswer, HeldQuery

# seconds that `ask` waits for a worker whose connection is open: a handler may keep Python busy
BUSY_TIMEOUT = 5.0
REPEAT_INTERVAL = 0.1  # seconds between two queries, while consumers do not answer
# seconds after which a consumer that never answered counts as another library's; a guess
STRANGER_TIMEOUT = 5.0


@dataclass(frozen=True)
class Holdings:
    """What the workers hold, by their answers to one query."""

    answers: tuple[HeldAnswer, ...] = ()
    silent: tuple[HeldAnswer, ...] = ()  # last answers of connected workers that answer no more
    strangers: Mapping[str, int] = field(default_factory=dict)  # consumers that never answered

    @property
    def are_empty(self) -> bool:
        """Every worker has answered that it holds nothing."""
        return not (self.silent or self.strangers or any(each.held for each in self.answers))

    @property
    def received(self) -> dict[str, int]:
        """How many messages each worker has received since it started, by its id."""
        return {each.worker: each.received for each in self.answers}

    def lines(self, plain_name: Callable[[str], str]) -> list[str]:
        """Return a line for each worker that holds a message or does not answer."""
        return [
            *[
                f"{each} holds {each.held:,} of {safe(plain_name(each.queue))}"
                for each in self.answers
                if each.held
            ],
            *[
                f"{each} does not answer; it held {each.held:,} of {safe(plain_name(each.queue))} "
                f"before"
                for each in self.silent
            ],
            *[
                f"no answer so far from {counted(number, 'consumer')} of {safe(plain_name(queue))}"
                for queue, number in self.strangers.items()
            ],
        ]


class Holders:
    """Asks the workers in the namespace of *settings*; *publisher* sends the queries.

    The run's consumer opens `own_queue`, which receives the answers, on its connection.

    Threads: `poll` and `ask` from one thread at a time, but not from an I/O thread.
    """

    def __init__(self, settings: Settings, publisher: Publisher) -> None:
        topology = settings.topology
        self._settings = settings
        self._exchange = topology.events_exchange
        self._key = topology.discovery_key
        self._publisher = publisher
        self._changed = Waiter()
        self._number = 0  # of the latest query
        self._known: dict[str, HeldAnswer] = {}  # the latest answer of each worker
        self._strangers: dict[str, tuple[int, float]] = {}  # queue -> their number, and since when
        self.own_queue = ExclusiveQueue(
            held_reply_stem(settings),
            self._exchange,
            self._key,
            ttl=QUERY_TTL,
            on_message=self._on_message,
            on_change=self._changed.notify_all,
        )

    def poll(self) -> None:
        """Send a query and do not wait, to know workers before one of them stops to answer."""
        if self.own_queue.name:
            self._number += 1
            with suppress(MousetrapError):  # the publisher is closed: so is the run
                self._publisher.publish_to_exchange(
                    msgspec.json.encode(HeldQuery(self._number)),
                    self._exchange,
                    self._key,
                    lambda _: None,
                    request_properties(self.own_queue.name, QUERY_TTL),
                )

    def ask(self, consumers: Mapping[str, int], timeout: float) -> Holdings:
        """Return what all workers hold now.

        *consumers* are the numbers of consumers that the broker counts, by the queue's name on the
        wire. A worker that is known, or that the broker still counts, is waited for.
        """
        deadline = clock.monotonic() + min(timeout, BUSY_TIMEOUT)
        if self.own_queue.is_forbidden:
            return Holdings()  # nobody can be asked
        self._changed.wait_for(lambda: bool(self.own_queue.name), clock.remaining(deadline))
        self.poll()
        number = self._number

        def missing() -> dict[str, int]:
            answered = self._answered(number)
            return {
                queue: left
                for queue, count in consumers.items()
                if (left := count - sum(each.queue == queue for each in answered)) > 0
            }

        def are_complete() -> bool:
            return not missing() and len(self._answered(number)) == len(self._known)

        early = min(deadline, clock.monotonic() + DISCOVERY_TIMEOUT)
        silent: list[HeldAnswer] = []
        while not (
            has_all := self._changed.wait_for(
                are_complete, min(REPEAT_INTERVAL, clock.remaining(early))
            )
        ) and clock.remaining(early):
            self.poll()  # a worker that has just started did not receive the query before
        if not has_all:
            self._forget_the_gone(number, deadline)
            self._changed.wait_for(
                lambda: len(self._answered(number)) == len(self._known), clock.remaining(deadline)
            )
            silent = [each for each in list(self._known.values()) if each.query < number]
        left = missing()
        for each in silent:
            if each.queue in left:
                left[each.queue] -= 1
        return Holdings(tuple(self._answered(number)), tuple(silent), self._new_strangers(left))

    def _answered(self, number: int) -> list[HeldAnswer]:
        return [each for each in list(self._known.values()) if each.query >= number]

    def _forget_the_gone(self, number: int, deadline: float) -> None:
        """Forget the workers that did not answer and whose connection is closed.

        The exclusive queue of a worker exists as long as its connection: to other connections the
        broker answers that it is locked.
        """
        for each in list(self._known.values()):
            if each.query < number and not _exists(each.address, self._settings, deadline):
                self._known.pop(each.worker, None)

    def _new_strangers(self, left: Mapping[str, int]) -> dict[str, int]:
        """Return the consumers that never answered, unless that is so for a long time."""
        now = clock.monotonic()
        self._strangers = {
            queue: (number, since)
            for queue, number in left.items()
            if number > 0
            for before, since in [self._strangers.get(queue, (number, now))]
            for since in [since if number <= before else now]
        }
        return {
            queue: number
            for queue, (number, since) in self._strangers.items()
            if now - since < STRANGER_TIMEOUT
        }

    def _on_message(self, body: bytes, _: str | None) -> None:  # on the I/O thread
        with suppress(
            UndecodableMessage
        ):  # the query of another run, or a message of another program
            answer: HeldAnswer = decode(body, HeldAnswer)
            self._known[answer.worker] = answer
            self._changed.notify_all()


def _exists(queue: str, settings: Settings, deadline: float) -> bool:
    """Return whether the exclusive queue of another connection exists (its name on the wire)."""
    try:
        with job_queue.short_channel(settings, clock.remaining(deadline)) as channel:
            channel.queue_declare(queue, passive=True)
    except QueueMissing:
        return False
    except WireError:  # 405: locked; or the broker cannot be asked now
        return True
    return True
