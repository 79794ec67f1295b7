"""Finds out what else consumes a queue: the broker knows the number, workers answer queries.

A query is one message on the events exchange, with a routing key that no outcome has. Each worker
receives it in an exclusive queue of its own and sends its answer to the exclusive queue of the
worker that asked. Without a query nothing is sent. Where the user may not declare such a queue, or
events are switched off, there are numbers and no names.

A run asks a second question, to all workers of its namespace at once: how many messages each of
them holds (see `mousetrap.runs.holders`). A worker asks a third one, before it counts a lost worker
(see `mousetrap.worker.loss_queries`). A worker of an older version ignores what it does not know.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from mousetrap.amqp import redeliveries
from mousetrap.amqp.exclusive_queue import ExclusiveQueue
from mousetrap.amqp.properties import request_properties
from mousetrap.amqp.publisher import Publisher
from mousetrap.errors import MousetrapError, UndecodableMessage
from mousetrap.model.decoding import decode
from mousetrap.runtime import clock, forks, randomness, threads
from mousetrap.runtime.environment import is_kernel, program_name
from mousetrap.runtime.interrupt import Waiter
from mousetrap.settings import Settings
from mousetrap.worker.discovery_messages import (
    ConsumerInfo,
    ConsumerQuery,
    HeldAnswer,
    HeldQuery,
    SurvivorAnswer,
    SurvivorQuery,
)

log = logging.getLogger("mousetrap.worker.consumer_discovery")

DISCOVERY_TIMEOUT = 0.5  # seconds for answers; a worker's I/O thread needs a few milliseconds
MAX_ANSWERS = 100  # that are kept; nobody reads a longer list
QUERY_TTL = 2000  # milliseconds after which a query or an answer that nobody received expires
_SHARES = {1 / 2: "half", 1 / 3: "a third", 2 / 3: "two thirds", 1 / 4: "a quarter"}


_FROM_WORKERS = ConsumerQuery | ConsumerInfo | HeldQuery | SurvivorQuery | SurvivorAnswer


@dataclass(frozen=True)
class Attached:
    """The consumers of a queue at one moment: their number, those of this process, and others."""

    consumers: int  # all of them, as the broker says
    here: int  # those of this process
    others: tuple[ConsumerInfo, ...] = ()  # those of other processes that answered

    @property
    def elsewhere(self) -> int:
        """How many belong to other processes."""
        return max(0, self.consumers - self.here)

    @property
    def warning(self) -> str:
        """What share of the messages arrives here; "" when no other process consumes the queue."""
        if not self.elsewhere:
            return ""
        share = self.here / self.consumers
        verb = "is" if self.elsewhere == 1 else "are"
        home = "kernel" if is_kernel() else "process"
        return (
            f"{self.consumers} attached, {self.elsewhere} {verb} not from this {home}: you will "
            f"see about {_SHARES.get(share, f'{share:.0%}')} of the messages"
        )

    def lines(self) -> list[str]:
        """The warning and a line for each of the others; empty when there are none."""
        if not self.elsewhere:
            return []
        silent = self.elsewhere - len(self.others)
        rest = f"{silent:,} without an answer: other clients, or workers that are too busy"
        return [self.warning, *map(str, self.others), *([rest] if silent > 0 else [])]

    def __str__(self) -> str:
        return self.warning or f"{self.consumers} attached"


class ConsumerDiscovery:
    """Sends queries about *queue* (its name on the wire) and answers those of other workers.

    *held* returns how many messages the worker holds, how many it has received since its start, and
    how many it may hold.

    The worker's consumer opens `own_queue` on its connection. Queries and answers are sent on the
    connection that publishes: a broker with an alarm stops reading from it, which must not happen
    to the connection that acks.

    Threads: `ask` from any but the I/O threads; the rest from any.
    """

    def __init__(
        self,
        settings: Settings,
        queue: str,
        publisher: Publisher,
        held: Callable[[], tuple[int, int, int]] = lambda: (0, 0, 0),
    ) -> None:
        self._stage = ""
        self._held = held
        self._is_answering = False  # while the worker consumes
        self._settings = settings
        self._exchange = settings.topology.events_exchange
        self._key = settings.topology.discovery_key
        self._queue = queue
        self._publisher = publisher
        self._worker = randomness.new_id()
        self._asking = threads.Lock()  # one query at a time
        self._changed = Waiter()
        self._answers: dict[str, ConsumerInfo] = {}  # by worker
        self._on_survivor: Callable[[SurvivorAnswer], object] = lambda _: None
        self._on_ready: Callable[[], object] = lambda: None
        # None where events are switched off, or nothing may be declared
        self.own_queue: ExclusiveQueue | None = None
        topology = settings.topology
        if self._exchange and (topology.is_own or topology.declare != "never"):
            self.own_queue = ExclusiveQueue(
                _stem(queue),
                self._exchange,
                self._key,
                ttl=QUERY_TTL,
                on_message=self._on_message,
                on_change=self._on_change,
            )

    def start_answering(self, stage: str) -> None:
        """Count as a consumer and answer queries as *stage*: the worker consumes now."""
        self._stage, self._is_answering = stage, True
        _count_consumers(self._settings, self._queue, +1)

    def rename(self, stage: str) -> None:
        """Answer queries as *stage* from now on, if they are answered."""
        self._stage = stage

    def stop_answering(self) -> None:
        """Count as a consumer no more, and answer no queries: the worker stops consuming."""
        if self._is_answering:
            self._is_answering = False
            _count_consumers(self._settings, self._queue, -1)

    @property
    def consumers_here(self) -> int:
        """How many consumers of the queue this process has."""
        return _consumers_here[_identity(self._settings, self._queue)]

    def attached(self, count: Callable[[float], int | None], timeout: float) -> Attached | None:
        """Return what consumes the queue; None without an answer of the broker in *timeout* s.

        *count* asks the broker for the number of consumers, and has that many seconds.
        """
        deadline = clock.monotonic() + timeout
        if (consumers := count(timeout)) is None:
            return None
        here = min(consumers, self.consumers_here)
        others = self.ask(consumers - here, clock.remaining(deadline))
        return Attached(consumers, here, others[: consumers - here])

    def ask(self, expected: int, timeout: float = DISCOVERY_TIMEOUT) -> tuple[ConsumerInfo, ...]:
        """Ask which workers of other processes consume the queue; return their answers.

        Returns when *expected* have answered or after *timeout* seconds, because other clients
        never answer. Nothing is asked if none are expected.
        """
        deadline = clock.monotonic() + timeout
        own = self.own_queue
        if own is None or expected <= 0 or not self._asking.acquire(timeout=timeout):
            return ()
        try:
            self._answers.clear()
            self._changed.wait_for(
                lambda: bool(own.name) or own.is_refused, clock.remaining(deadline)
            )
            if not own.name:
                return ()
            for part in (2, 1):  # twice: a worker that has just started may not listen yet
                with suppress(MousetrapError):  # the publisher is closed: so is this worker
                    self._send(ConsumerQuery(self._queue), self._exchange, self._key, own.name)
                left = clock.remaining(deadline) / part
                if self._changed.wait_for(lambda: len(self._answers) >= expected, left):
                    break
            found = list(self._answers.values())
        finally:
            self._asking.release()
        return tuple(sorted(found, key=lambda each: (each.program, each.host, each.pid)))

    # ---- I/O thread ------------------------------------------------------------------------------

    @property
    def can_ask(self) -> bool:
        """Whether there is, or soon will be, a queue for answers: the broker has not refused it."""
        return self.own_queue is not None and not self.own_queue.is_refused

    @property
    def can_publish(self) -> bool:
        """Whether the broker accepts messages now."""
        return self._publisher.connection.state == "open"

    def when_survived(
        self,
        on_answer: Callable[[SurvivorAnswer], object],
        on_ready: Callable[[], object],
    ) -> None:
        """Call *on_answer* with each answer to `ask_survivors`, *on_ready* when it can be asked."""
        self._on_survivor, self._on_ready = on_answer, on_ready

    def ask_survivors(self, messages: Sequence[tuple[str, int]]) -> None:
        """Ask all processes of the namespace for those of *messages* that they held before.

        These are ids, each with its losses now. Nothing is asked while there is no queue for the
        answers.
        """
        if self.own_queue is not None and self.own_queue.name:
            query = SurvivorQuery(self._queue, _process_id(), messages)
            with suppress(MousetrapError):  # the publisher is closed: so is this worker
                self._send(query, self._exchange, self._key, self.own_queue.name)

    def _on_change(self) -> None:
        self._changed.notify_all()
        if self.own_queue is not None and self.own_queue.name:
            self._on_ready()
        elif self.own_queue is not None and self.own_queue.is_refused:
            reason = self.own_queue.refusal
            log.debug("%s: others cannot ask for this consumer: %s", self._queue, reason)

    def _on_message(self, body: bytes, reply_to: str | None) -> None:
        try:
            message = decode(body, _FROM_WORKERS)
        except UndecodableMessage:  # another client published it to our exchange
            return
        if isinstance(message, ConsumerQuery):
            self._on_query(message, reply_to)
        elif isinstance(message, HeldQuery):
            self._on_held_query(message, reply_to)
        elif isinstance(message, SurvivorQuery):
            self._on_survivor_query(message, reply_to)
        elif isinstance(message, SurvivorAnswer):
            self._on_survivor(message)
        elif message.process != _process_id() and len(self._answers) < MAX_ANSWERS:
            self._answers[message.worker] = message
            self._changed.notify_all()

    def _on_query(self, query: ConsumerQuery, reply_to: str | None) -> None:
        # A reply-to queue of any other name could be a work queue, whose worker would handle the
        # answer as a job.
        is_ours = reply_to is not None and reply_to.startswith(_stem(self._queue))
        if query.queue == self._queue and is_ours and self._is_answering:
            info = ConsumerInfo(
                worker=self._worker,
                process=_process_id(),
                host=socket.gethostname(),
                pid=os.getpid(),
                program=program_name(),
                stage=self._stage,
            )
            with suppress(MousetrapError):
                self._send(info, "", str(reply_to))

    def _on_held_query(self, query: HeldQuery, reply_to: str | None) -> None:
        # Also while the worker stops: it may still hold messages. For the name see `_on_query`.
        if reply_to is None or not reply_to.startswith(held_reply_stem(self._settings)):
            return
        held, received, prefetch = self._held()
        answer = HeldAnswer(
            query=query.number,
            worker=self._worker,
            address=self.own_queue.name if self.own_queue is not None else "",
            queue=self._queue,
            held=held,
            received=received,
            prefetch=prefetch,
            host=socket.gethostname(),
            pid=os.getpid(),
            program=program_name(),
            stage=self._stage,
        )
        with suppress(MousetrapError):
            self._send(answer, "", reply_to)

    def _on_survivor_query(self, query: SurvivorQuery, reply_to: str | None) -> None:
        # Also about queues of other workers of this process, and while this one stops. For the
        # name see `_on_query`.
        if reply_to is None or not reply_to.startswith(_stem(query.queue)):
            return
        found = redeliveries.hand_over(query.queue, query.messages, query.process)
        if found:
            answer = SurvivorAnswer([(e.id, e.losses, e.has_ack_timed_out) for e in found])
            with suppress(MousetrapError):
                self._send(answer, "", reply_to)

    def _send(
        self,
        message: ConsumerQuery | ConsumerInfo | HeldAnswer | SurvivorQuery | SurvivorAnswer,
        exchange: str,
        key: str,
        reply_to: str | None = None,
    ) -> None:
        properties = request_properties(reply_to, QUERY_TTL)
        self._publisher.publish_to_exchange(
            msgspec.json.encode(message), exchange, key, lambda _: None, properties
        )


_lock = forks.released_in_child(threads.Lock())  # guards `_consumers_here`
_consumers_here: Counter[tuple[object, ...]] = Counter()  # by broker, queue and process


def _count_consumers(settings: Settings, queue: str, change: int) -> None:
    with _lock:
        _consumers_here[_identity(settings, queue)] += change


def _identity(settings: Settings, queue: str) -> tuple[object, ...]:
    host = "localhost" if settings.host in ("127.0.0.1", "::1") else settings.host
    # with the process id, because a forked child has none of the consumers of its parent
    return host, settings.port, settings.vhost, queue, os.getpid()


_id_and_pid = ("", 0)


def _process_id() -> str:
    global _id_and_pid
    if _id_and_pid[1] != os.getpid():  # a fork is another process
        _id_and_pid = (randomness.new_id(), os.getpid())
    return _id_and_pid[0]


def held_reply_stem(settings: Settings) -> str:
    """Return how the names of the queues begin that receive the answers to a `HeldQuery`."""
    return _stem(settings.topology.wire_name("events"))


def _stem(queue: str) -> str:
    # The name begins like that of the queue, because RabbitMQ's permissions are patterns of names:
    # a user who may use the queue may then use this one. A random id of 32 characters follows, and
    # a name may have 255 bytes.
    return f"{queue.encode()[:200].decode(errors='ignore')}.who."
