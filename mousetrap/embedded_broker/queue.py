"""Queues: which messages wait, which consumer gets the next one, which messages are dropped.

A classic queue puts a requeued message back to its old position. A quorum queue keeps requeued
messages in a line of their own, serves that line first, and counts the deliveries. In both, a
message expires only at the head.
Threads: the server's own.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

from mousetrap.embedded_broker.arguments import QueueArguments
from mousetrap.embedded_broker.clock import Alarm, Clock
from mousetrap.embedded_broker.limits import Limits
from mousetrap.embedded_broker.message import Message, QueuedMessage


class QueueConsumer(Protocol):
    """A consumer as its queue sees it."""

    queue: Queue
    tag: str
    number: int  # the order in which consumers began
    priority: int
    is_exclusive: bool
    unacked: int  # deliveries that it has not settled

    def can_receive(self) -> bool:
        """Whether it can take one more message now."""

    def deliver(self, queue: Queue, queued: QueuedMessage) -> None:
        """Send the message to the client."""

    def cancel(self) -> None:
        """End it because its queue is deleted."""


class QueueHost(Protocol):
    """What a queue uses of its virtual host."""

    clock: Clock
    limits: Limits

    def count_memory(self, change: int, /) -> None:
        """Add *change* bytes to the memory in use."""

    def dead_letter(self, queue: Queue, queued: QueuedMessage, reason: str) -> None:
        """Publish a message that left *queue* to the queue's dead-letter exchange."""

    def deferring_dead_letters(self) -> AbstractContextManager[None]:
        """Publish dead letters when the block ends."""

    def delete_queue(self, queue: Queue) -> int:
        """Delete the queue with its bindings."""


class Queue:
    """One queue of a virtual host."""

    def __init__(
        self,
        vhost: QueueHost,
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
        self.owner = owner  # the only connection that may use it, or None
        self.given = given  # the arguments as the client sent them
        self.arguments = arguments
        self.consumers: list[QueueConsumer] = []  # highest priority first, then the oldest
        # consumers that may have room: highest priority first, then by whose turn it is
        self._waiting: list[QueueConsumer] = []
        self._full: list[QueueConsumer] = []  # those that had no room, in the order of that moment
        self.active: QueueConsumer | None = None  # with x-single-active-consumer
        self.unacked = 0
        self.unacked_gets = 0  # those of `unacked` that basic.get took
        self.cancelled: list[QueueConsumer] = []  # consumers that still hold unsettled messages
        self._requeued: deque[QueuedMessage] = deque()  # of a quorum queue
        self._by_priority: dict[int, deque[QueuedMessage]] = {0: deque()}  # highest priority first
        self.is_deleted = False
        self._ready = 0
        self._bytes = 0  # of the bodies of ready messages
        self._expiry_alarm: Alarm | None = None
        self._idle_alarm: Alarm | None = None
        self.touch()

    @property
    def is_quorum(self) -> bool:
        """Whether it behaves as a quorum queue."""
        return self.arguments.type == "quorum"

    @property
    def ready(self) -> int:
        """How many messages are ready, after expired ones were dropped from the head."""
        self.drop_expired()
        return self._ready

    @property
    def consumer_count(self) -> int:
        """The number of consumers that a client sees.

        A quorum queue also counts cancelled consumers that hold messages, and messages that
        basic.get took.
        """
        self.cancelled = [consumer for consumer in self.cancelled if consumer.unacked]
        holding = len(self.cancelled) + self.unacked_gets if self.is_quorum else 0
        return len(self.consumers) + holding

    def touch(self) -> None:
        """Start the time of ``x-expires`` again, because the queue is used.

        A second declaration is a use of a classic queue if the client waits for the answer, and
        never of a quorum queue, as in RabbitMQ.
        """
        if self._idle_alarm is not None:
            self._idle_alarm.cancel()
            self._idle_alarm = None
        if self.arguments.expires is not None and not self.consumers:
            clock = self.vhost.clock
            self._idle_alarm = clock.at(clock.now() + self.arguments.expires, self._expire)

    def _expire(self) -> None:
        if not self.consumers:
            self.vhost.delete_queue(self)

    def publish(self, message: Message) -> bool:
        """Add a message; return False if the queue is full and rejects it."""
        rules = self.arguments
        self.drop_expired()
        if rules.overflow != "drop-head" and self._is_over(1, len(message.body)):
            if rules.overflow == "reject-publish-dlx":
                self.vhost.dead_letter(self, QueuedMessage(message, None, 0), "maxlen")
            return False
        ttls = [] if rules.ttl is None else [rules.ttl]
        if message.has("expiration"):
            ttls.append(int(message.get("expiration")) / 1000)
        expiry = self.vhost.clock.now() + min(ttls) if ttls else None
        priority = 0
        if rules.max_priority and message.has("priority"):
            priority = min(message.get("priority"), rules.max_priority)
        queued = QueuedMessage(message, expiry, priority)
        self._insert(queued)
        self.vhost.count_memory(message.size)
        self.deliver()
        if self._ready:  # as in RabbitMQ: the flag is not set if a consumer got it at once
            queued.is_redelivered = queued.delivery_count > 0
        if self._drop_overflow() or (ttls and min(ttls) == 0):
            self.drop_expired()
        return True

    def _drop_overflow(self) -> bool:
        """Drop messages beyond the maximum length; return whether there were any.

        If there were, the caller has to call `drop_expired`, because the message that is now at the
        head may have expired.
        """
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

    def _insert(self, queued: QueuedMessage) -> None:
        if queued.priority not in self._by_priority:
            self._by_priority[queued.priority] = deque()
            self._by_priority = dict(sorted(self._by_priority.items(), reverse=True))
        level = self._by_priority[queued.priority]
        if not level or level[-1] < queued:
            level.append(queued)
        elif queued < level[0]:
            level.appendleft(queued)
        else:
            insort(level, queued)
        self._ready += 1
        self._bytes += len(queued.message.body)
        if queued.expiry is not None and self._head() is queued:
            self._set_expiry_alarm()

    def _head(self) -> QueuedMessage | None:
        if self._requeued:
            return self._requeued[0]
        return next((level[0] for level in self._by_priority.values() if level), None)

    def _pop(self) -> QueuedMessage:
        waiting = self._requeued or next(level for level in self._by_priority.values() if level)
        queued = waiting.popleft()
        self._ready -= 1
        self._bytes -= len(queued.message.body)
        return queued

    def _discard(self, queued: QueuedMessage, reason: str) -> None:
        self.vhost.count_memory(-queued.message.size)
        self.vhost.dead_letter(self, queued, reason)

    def drop_expired(self) -> None:
        """Dead-letter expired messages at the head, and set the alarm for the next one."""
        now = self.vhost.clock.now()
        expired = []
        while (head := self._head()) and head.expiry is not None and head.expiry <= now:
            expired.append(self._pop())
        if not expired:
            return
        self._set_expiry_alarm()
        with self.vhost.deferring_dead_letters():
            for queued in expired:
                self._discard(queued, "expired")

    def _set_expiry_alarm(self) -> None:
        head = self._head()
        if self._expiry_alarm is not None:
            self._expiry_alarm.cancel()
            self._expiry_alarm = None
        if head is not None and head.expiry is not None:
            self._expiry_alarm = self.vhost.clock.at(head.expiry, self.drop_expired)

    def get(self) -> QueuedMessage | None:
        """Remove and return the next message; the caller settles it."""
        self.touch()
        self.drop_expired()
        if not self._ready:
            return None
        self.unacked += 1
        queued = self._pop()
        self._set_expiry_alarm()
        return queued

    def deliver(self) -> None:
        """Deliver ready messages to the consumers that can receive them."""
        while self._ready and (consumer := self._next_consumer()):
            self.unacked += 1
            consumer.deliver(self, self._pop())
            if self.is_quorum:
                self._set_full_consumers_aside()
            head = self._head()
            if head is not None and head.expiry is not None:
                self.drop_expired()

    def _next_consumer(self) -> QueueConsumer | None:
        if self.arguments.single_active:
            return self.active if self.active is not None and self.active.can_receive() else None
        while self._waiting:
            consumer = self._waiting[0]
            if consumer.can_receive():
                if len(self._waiting) > 1:
                    del self._waiting[0]
                    _insert_by_priority(self._waiting, consumer)
                return consumer
            self._full.append(self._waiting.pop(0))
        return None

    def _set_full_consumers_aside(self) -> None:
        # only for a quorum queue: a classic queue checks a consumer when its turn comes
        self._full += [consumer for consumer in self._waiting if not consumer.can_receive()]
        self._waiting = [consumer for consumer in self._waiting if consumer not in self._full]

    def recheck_full_consumers(self) -> None:
        """Put full consumers that have room again behind the waiting ones of their priority."""
        for consumer in [consumer for consumer in self._full if consumer.can_receive()]:
            self._full.remove(consumer)
            _insert_by_priority(self._waiting, consumer)

    def add_consumer(self, consumer: QueueConsumer) -> None:
        """Add a consumer; the caller calls `deliver` afterwards."""
        for consumers in (self.consumers, self._waiting):
            _insert_by_priority(consumers, consumer)
        if self.active is None:
            self.active = consumer
        self.touch()

    def remove_consumer(self, consumer: QueueConsumer) -> None:
        """Remove a consumer; an auto-delete queue is deleted with its last consumer.

        Delivers nothing: the caller requeues the consumer's messages, if needed, and then calls
        `deliver`.
        """
        for consumers in (self.consumers, self._waiting, self._full):
            if consumer in consumers:
                consumers.remove(consumer)
        if self.active is consumer:
            self.active = self.consumers[0] if self.consumers else None
        self.touch()
        if self.auto_delete and not self.consumers:
            self.vhost.delete_queue(self)

    def ack(self, messages: list[QueuedMessage]) -> None:
        """Drop messages that a consumer has acked."""
        self.unacked -= len(messages)
        for queued in messages:
            self.vhost.count_memory(-queued.message.size)

    def requeue(self, messages: list[QueuedMessage], *, has_failed: bool) -> None:
        """Put delivered messages back; *has_failed*: it counts towards the delivery limit.

        In RabbitMQ 4.3 a basic.reject and the end of a channel count; a basic.nack does not.
        """
        for queued in messages:
            self.unacked -= 1
            queued.is_redelivered = True
            queued.acquired_count += 1
            queued.delivery_count += has_failed
            if not self.is_quorum:
                self._insert(queued)
                continue
            limit = self.arguments.delivery_limit
            limit = self.vhost.limits.delivery_limit if limit is None else limit
            if 0 <= limit < queued.delivery_count:
                self._discard(queued, "delivery_limit")
            else:
                self._requeued.append(queued)
                self._ready += 1
                self._bytes += len(queued.message.body)
        self._set_expiry_alarm()
        if self.arguments.overflow == "drop-head":
            self._drop_overflow()
        self.drop_expired()

    def reject(self, messages: list[QueuedMessage], *, has_failed: bool) -> None:
        """Dead-letter messages that a consumer rejected; *has_failed* as in `requeue`.

        As in RabbitMQ, a classic queue keeps a list for each priority and begins with the highest.
        """
        if not self.is_quorum:
            messages = sorted(messages, key=lambda queued: -queued.priority)
        for queued in messages:
            self.unacked -= 1
            queued.acquired_count += 1
            queued.delivery_count += has_failed
            self._discard(queued, "rejected")

    def properties_to_send(self, queued: QueuedMessage) -> bytes:
        """Return the properties for a delivery; a quorum queue adds its delivery counts."""
        if not self.is_quorum or not queued.is_redelivered:
            return queued.message.properties
        counts = {
            "x-acquired-count": queued.acquired_count,
            "x-delivery-count": queued.delivery_count or None,
        }
        return queued.message.replace(headers=counts).properties

    def purge(self) -> int:
        """Drop all ready messages; return how many there were."""
        count = self.ready
        for queued in self._all_ready():
            self.vhost.count_memory(-queued.message.size)
        self._requeued.clear()
        self._by_priority = {0: deque()}
        self._ready = self._bytes = 0
        self._set_expiry_alarm()
        return count

    def _all_ready(self) -> Iterator[QueuedMessage]:
        yield from self._requeued
        for level in self._by_priority.values():
            yield from level

    def close(self) -> None:
        """Drop all messages and cancel all consumers, because the queue is deleted."""
        self.is_deleted = True
        self.purge()
        for alarm in (self._expiry_alarm, self._idle_alarm):
            if alarm is not None:
                alarm.cancel()
        consumers, self.consumers, self.active = self.consumers, [], None
        self._waiting, self._full = [], []
        for consumer in consumers:
            consumer.cancel()


def _insert_by_priority(consumers: list[QueueConsumer], consumer: QueueConsumer) -> None:
    position = sum(other.priority >= consumer.priority for other in consumers)
    consumers.insert(position, consumer)
