"""Queues: what waits, who gets it next, what is thrown out.

A classic queue puts a requeued message back where it was; a quorum queue puts it in a line of its
own, served first, and counts the deliveries. Messages expire at the head only, in both.
Threads: the server's own.
"""

from __future__ import annotations

import itertools
from bisect import insort
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from mousetrap.embedded_broker.arguments import QueueArguments
from mousetrap.embedded_broker.message import Message

if TYPE_CHECKING:
    from mousetrap.embedded_broker.clock import Alarm
    from mousetrap.embedded_broker.vhost import VirtualHost

NUMBERS = itertools.count()


class Entry:
    """A message in a queue."""

    __slots__ = (
        "acquired", "deliveries", "expiry", "is_redelivered", "message", "number", "priority",
    )  # fmt: skip

    def __init__(self, message: Message, expiry: float | None, priority: int) -> None:
        self.message = message
        self.expiry = expiry  # by the server's clock
        self.priority = priority
        self.number = next(NUMBERS)
        past = message.past
        self.acquired = past.acquired if past else 0  # deliveries that ended without an ack
        self.deliveries = past.failed if past else 0  # those of them that count as failed
        self.is_redelivered = False

    def __lt__(self, other: Entry) -> bool:
        return self.number < other.number


class Taker(Protocol):
    """A consumer as its queue sees it."""

    tag: str
    priority: int
    is_exclusive: bool
    held: int  # deliveries that it has not settled

    def can_take(self) -> bool:
        """Whether it may be given one more."""

    def take(self, queue: Queue, entry: Entry) -> None:
        """Deliver to it."""

    def cancelled(self) -> None:
        """Tell it that its queue is gone."""


class Queue:
    """One queue of a virtual host."""

    def __init__(
        self,
        vhost: VirtualHost,
        name: str,
        *,
        durable: bool,
        auto_delete: bool,
        owner: Any,
        given: dict[str, Any],
        arguments: QueueArguments,
    ) -> None:
        self.vhost = vhost
        self.name = name
        self.durable = durable
        self.auto_delete = auto_delete
        self.owner = owner  # the connection that has it to itself, or None
        self.given = given
        self.arguments = arguments
        self.consumers: list[Taker] = []  # by falling priority, the first that came first
        self._turns: list[Taker] = []  # who may have room: by falling priority, then whose turn
        self._full: list[Taker] = []  # who had none, in the order in which that was seen
        self.active: Taker | None = None  # with x-single-active-consumer
        self.unacked = 0
        self.gets = 0  # of them, those that somebody asked for
        self.leaving: list[Taker] = []  # cancelled, but not all of theirs is settled
        self._returned: deque[Entry] = deque()  # a quorum queue's
        self._levels: dict[int, deque[Entry]] = {0: deque()}  # by priority, falling
        self.is_deleted = False
        self._ready = 0
        self._bytes = 0  # of bodies that are ready
        self._expiry_alarm: Alarm | None = None
        self._idle_alarm: Alarm | None = None
        self.touch()

    @property
    def is_quorum(self) -> bool:
        """Whether it behaves as a quorum queue does."""
        return self.arguments.type == "quorum"

    @property
    def ready(self) -> int:
        """How many messages wait, those that have expired not counted."""
        self.drop_expired()
        return self._ready

    @property
    def consumer_count(self) -> int:
        """How many consumers a client is told; a quorum queue counts all that hold a message."""
        self.leaving = [each for each in self.leaving if each.held]
        holding = len(self.leaving) + self.gets if self.is_quorum else 0
        return len(self.consumers) + holding

    def touch(self) -> None:
        """Note that it is used: ``x-expires`` counts from now."""
        if self._idle_alarm is not None:
            self._idle_alarm.cancel()
            self._idle_alarm = None
        if self.arguments.expires is not None and not self.consumers:
            clock = self.vhost.clock
            self._idle_alarm = clock.at(clock.now() + self.arguments.expires, self._idle)

    def _idle(self) -> None:
        if not self.consumers:
            self.vhost.delete_queue(self)

    def publish(self, message: Message) -> bool:
        """Take a message; False if the queue is full and refuses it."""
        rules = self.arguments
        self.drop_expired()
        if rules.overflow != "drop-head" and self._is_over(1, len(message.body)):
            if rules.overflow == "reject-publish-dlx":
                self.vhost.dead_letter(self, Entry(message, None, 0), "maxlen")
            return False
        lifetimes = [] if rules.ttl is None else [rules.ttl]
        if message.has("expiration"):
            lifetimes.append(int(message.get("expiration")) / 1000)
        expiry = self.vhost.clock.now() + min(lifetimes) if lifetimes else None
        priority = 0
        if rules.max_priority and message.has("priority"):
            priority = min(message.get("priority"), rules.max_priority)
        entry = Entry(message, expiry, priority)
        self._put(entry)
        self._count(entry, 1)
        self.deliver()
        if self._ready:  # as RabbitMQ: not if somebody waited for it
            entry.is_redelivered = entry.deliveries > 0
        if self._drop_what_is_over() or (lifetimes and min(lifetimes) == 0):
            self.drop_expired()
        return True

    def _drop_what_is_over(self) -> bool:
        """Say whether there was anything: then another is at the head, which may have expired."""
        before = self._ready
        while self._ready and self._is_over(0, 0):
            self._discard(self._pop(), "maxlen")
        return self._ready < before

    def _is_over(self, more: int, more_bytes: int) -> bool:
        rules = self.arguments
        count, size = rules.max_length, rules.max_bytes
        return (count is not None and self._ready + more > count) or (
            size is not None and self._bytes + more_bytes > size
        )

    def _put(self, entry: Entry) -> None:
        if entry.priority not in self._levels:
            self._levels[entry.priority] = deque()
            self._levels = dict(sorted(self._levels.items(), reverse=True))
        level = self._levels[entry.priority]
        if not level or level[-1] < entry:
            level.append(entry)
        elif entry < level[0]:
            level.appendleft(entry)
        else:
            insort(level, entry)
        self._ready += 1
        self._bytes += len(entry.message.body)
        if entry.expiry is not None and self._head() is entry:
            self._set_expiry_alarm()

    def _head(self) -> Entry | None:
        if self._returned:
            return self._returned[0]
        return next((level[0] for level in self._levels.values() if level), None)

    def _pop(self) -> Entry:
        waiting = self._returned or next(level for level in self._levels.values() if level)
        entry = waiting.popleft()
        self._ready -= 1
        self._bytes -= len(entry.message.body)
        return entry

    def _count(self, entry: Entry, sign: int) -> None:
        self.vhost.weigh(sign * entry.message.size)

    def _discard(self, entry: Entry, reason: str) -> None:
        self._count(entry, -1)
        self.vhost.dead_letter(self, entry, reason)

    def drop_expired(self) -> None:
        """Dead-letter what has expired at the head, and look again when the next one does."""
        now = self.vhost.clock.now()
        dropped = []
        while (head := self._head()) and head.expiry is not None and head.expiry <= now:
            dropped.append(self._pop())
        if dropped:
            self._set_expiry_alarm()
        with self.vhost.posting_later():
            for entry in dropped:
                self._discard(entry, "expired")

    def _set_expiry_alarm(self) -> None:
        head = self._head()
        if self._expiry_alarm is not None:
            self._expiry_alarm.cancel()
            self._expiry_alarm = None
        if head is not None and head.expiry is not None:
            self._expiry_alarm = self.vhost.clock.at(head.expiry, self.drop_expired)

    def get(self) -> Entry | None:
        """Take the next message out, for whoever settles it."""
        self.touch()
        self.drop_expired()
        if not self._ready:
            return None
        self.unacked += 1
        entry = self._pop()
        self._set_expiry_alarm()
        return entry

    def deliver(self) -> None:
        """Give what waits to consumers that may take it."""
        while self._ready and (consumer := self._next_consumer()):
            self.unacked += 1
            consumer.take(self, self._pop())
            if self.is_quorum:
                self._see_who_is_full()
            head = self._head()
            if head is not None and head.expiry is not None:
                self.drop_expired()

    def _next_consumer(self) -> Taker | None:
        if self.arguments.single_active:
            return self.active if self.active is not None and self.active.can_take() else None
        while self._turns:
            consumer = self._turns[0]
            if consumer.can_take():
                if len(self._turns) > 1:
                    del self._turns[0]
                    _insert(self._turns, consumer)
                return consumer
            self._full.append(self._turns.pop(0))
        return None

    def _see_who_is_full(self) -> None:
        # a classic queue notices it when it comes to somebody's turn
        self._full += [each for each in self._turns if not each.can_take()]
        self._turns = [each for each in self._turns if each not in self._full]

    def unblock(self) -> None:
        """Let consumers that have room again wait for their turn, behind the others."""
        for each in [each for each in self._full if each.can_take()]:
            self._full.remove(each)
            _insert(self._turns, each)

    def add(self, consumer: Taker) -> None:
        """Let a consumer in."""
        for each in (self.consumers, self._turns):
            _insert(each, consumer)
        if self.active is None:
            self.active = consumer
        self.touch()

    def remove(self, consumer: Taker) -> None:
        """Let a consumer go, and deliver to the others; an auto-delete queue goes with the last."""
        self.let_go(consumer)
        self.deliver()

    def let_go(self, consumer: Taker) -> None:
        """Let a consumer go whose messages are still to come back, before any other gets one."""
        for each in (self.consumers, self._turns, self._full):
            if consumer in each:
                each.remove(consumer)
        if self.active is consumer:
            self.active = self.consumers[0] if self.consumers else None
        self.touch()
        if self.auto_delete and not self.consumers:
            self.vhost.delete_queue(self)

    def acked(self, entries: list[Entry]) -> None:
        """Forget messages that are done."""
        self.unacked -= len(entries)
        for entry in entries:
            self._count(entry, -1)

    def returned(self, entries: list[Entry], *, has_failed: bool) -> None:
        """Put messages back that were given out; *has_failed* counts for the delivery limit.

        As in RabbitMQ 4.3 that is a rejection or the end of a channel, not a nack with requeue.
        """
        for entry in entries:
            self.unacked -= 1
            entry.is_redelivered = True
            entry.acquired += 1
            entry.deliveries += has_failed
            if not self.is_quorum:
                self._put(entry)
                continue
            limit = self.arguments.delivery_limit
            limit = self.vhost.limits.delivery_limit if limit is None else limit
            if 0 <= limit < entry.deliveries:
                self._discard(entry, "delivery_limit")
            else:
                self._returned.append(entry)
                self._ready += 1
                self._bytes += len(entry.message.body)
        self._set_expiry_alarm()
        if self.arguments.overflow == "drop-head":
            self._drop_what_is_over()
        self.drop_expired()

    def rejected(self, entries: list[Entry], *, has_failed: bool) -> None:
        """Dead-letter messages that a consumer does not want; *has_failed* as in `returned`.

        As in RabbitMQ a classic queue keeps a list for each priority, and begins with the highest.
        """
        if not self.is_quorum:
            entries = sorted(entries, key=lambda entry: -entry.priority)
        for entry in entries:
            self.unacked -= 1
            entry.acquired += 1
            entry.deliveries += has_failed
            self._discard(entry, "rejected")

    def purge(self) -> int:
        """Drop what is ready; return how many."""
        many = self.ready
        for entry in self._all():
            self._count(entry, -1)
        self._returned.clear()
        self._levels = {0: deque()}
        self._ready = self._bytes = 0
        self._set_expiry_alarm()
        return many

    def _all(self) -> Iterator[Entry]:
        yield from self._returned
        for level in self._levels.values():
            yield from level

    def close(self) -> None:
        """Forget everything; consumers are told."""
        self.is_deleted = True
        self.purge()
        for alarm in (self._expiry_alarm, self._idle_alarm):
            if alarm is not None:
                alarm.cancel()
        consumers, self.consumers, self.active = self.consumers, [], None
        self._turns, self._full = [], []
        for consumer in consumers:
            consumer.cancelled()


def _insert(takers: list[Taker], consumer: Taker) -> None:
    behind = sum(each.priority >= consumer.priority for each in takers)
    takers.insert(behind, consumer)
