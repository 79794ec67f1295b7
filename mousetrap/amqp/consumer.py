"""Consuming deliveries and acking them, across reconnects.

A delivery tag is valid only on the channel of its delivery. Each channel is therefore a
*generation*; an ack for an older generation is dropped, because on the new channel the same tag
may be another message. Prototyped in ``notebooks/03_worker.ipynb``.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any

from pika import spec
from pika.channel import Channel

from mousetrap.amqp import overdue_acks, redeliveries
from mousetrap.amqp.connection import Connection
from mousetrap.amqp.delivery import Delivery, mark_ack_timeouts
from mousetrap.amqp.error_translation import declare
from mousetrap.amqp.exclusive_queue import ExclusiveQueue
from mousetrap.amqp.io_thread import IOThread
from mousetrap.amqp.lost_queues import LostQueues
from mousetrap.amqp.overdue_acks import OverdueAcks, quorum_queues
from mousetrap.amqp.prefetch import QUIET_TIME, AutomaticPrefetch, FixedPrefetch, cancel
from mousetrap.amqp.properties import AMQPProperties, is_near_delivery_limit
from mousetrap.amqp.queues_on_demand import QueuesOnDemand
from mousetrap.amqp.recovered_messages import RecoveredMessages
from mousetrap.amqp.reply_codes import ack_timed_out
from mousetrap.display.safe_text import repr_of
from mousetrap.errors import ChannelLost, ConnectionLost, MousetrapError
from mousetrap.model.topology import AnyDeclaration, Binding, Declaration
from mousetrap.runtime import clock, forks, threads
from mousetrap.runtime.interrupt import Waiter
from mousetrap.settings import Settings

# Seconds between two declarations of the bindings. The broker does not say when an exchange or a
# binding was deleted; a consumer without its bindings would wait for ever.
BINDING_INTERVAL = 30.0

log = logging.getLogger("mousetrap.amqp.consumer")


class Consumer:
    """Consumes one queue with a bounded prefetch, after it has declared what it needs.

    If *quarantine* names a second queue, it consumes that as well, one message at a time. When the
    broker cancels it (the queue was deleted, or since RabbitMQ 4.3 an ack to a quorum queue timed
    out), it declares its queues again and continues. If its queues expire, it declares them
    regularly, and those of *on_demand* that are used, which renews the expiry. It opens
    *exclusive_queue* on its connection each time it starts to consume.

    *on_delivery* is called with each delivery and must return at once; *on_failed* when the
    connection has failed permanently; *on_reconnected* when the broker has accepted the consumer
    again after a loss. *being_handled* returns the deliveries whose handlers run, also those of
    channels that were lost. All are called on the I/O thread.

    Threads: any, but `open` and `count` not from the I/O thread; acks never block.
    """

    def __init__(
        self,
        settings: Settings,
        queue: str,
        prefetch: FixedPrefetch | int,
        declarations: Sequence[AnyDeclaration],
        *,
        on_delivery: Callable[[Delivery], object],
        on_failed: Callable[[MousetrapError], object],
        on_reconnected: Callable[[], object] = lambda: None,
        being_handled: Callable[[], Collection[Delivery]] = tuple,
        quarantine: str = "",
        on_demand: QueuesOnDemand | None = None,
        exclusive_queue: ExclusiveQueue | None = None,
        io_thread: IOThread | None = None,
        lost_queues: LostQueues | None = None,
    ) -> None:
        self.connection = Connection(settings, f"worker {queue}", self, io_thread, lost_queues)
        self.settings = settings
        self.queue = queue  # the name on the wire
        self.prefetch = FixedPrefetch(prefetch) if isinstance(prefetch, int) else prefetch
        self._declarations = declarations
        self.connection.declarer.add(declarations)
        self._on_delivery = on_delivery
        self._on_failed = on_failed
        self._on_reconnected = on_reconnected
        self._being_handled = being_handled
        self._exclusive_queue = exclusive_queue
        self._quarantine = quarantine
        self._on_demand = on_demand or QueuesOnDemand()
        self._generation = 0  # written on the I/O thread, read everywhere
        self._lock = forks.released_in_child(threads.Lock())
        self._settled: deque[Delivery] = deque()  # to be acked
        self._flush_is_due = False
        # I/O thread only:
        self._channel: Channel | None = None
        self._consumer_tags: list[str] = []  # of the quarantine
        self._outstanding: dict[int, Delivery] = {}  # not yet acked, in order of tags
        if isinstance(self.prefetch, AutomaticPrefetch):
            self.prefetch.attach(self.connection, self._outstanding, lambda held: self.ack(*held))
        self._has_consumed = False
        self._recovered = RecoveredMessages(filter(None, (queue, quarantine)))
        self._holds_acks = False  # until the consumer is cancelled
        self._last_ack = 0.0  # when acks were sent last, on the monotonic clock
        self._watched = ""  # the name on the wire of the queue that is counted
        self._on_count: Callable[[int], None] = lambda _: None

    def watch(self, queue: str, on_count: Callable[[int], None]) -> None:
        """Call *on_count* with the number of messages in *queue*, on the I/O thread.

        That happens each time after the queues were declared. *queue* is one of them, by its name
        on the wire.
        """
        self._on_count, self._watched = on_count, queue

    def open(self) -> None:
        """Connect and consume. Raises what `Connection.open` raises."""
        self.connection.open()
        if self.settings.queues_expire:
            self.connection.call_later(self._renewal_interval, self._renew)
        if any(isinstance(each, Binding) for each in self._declarations):
            self.connection.call_later(BINDING_INTERVAL, self._bind_again)
        if queues := quorum_queues(self._declarations, (self.queue, self._quarantine)):
            overdue = OverdueAcks(queues, self._on_message, lambda: bool(self.prefetch.tags))
            self.connection.call_later(
                overdue_acks.INTERVAL, lambda: self._look_for_overdue(overdue)
            )

    def ack(self, *deliveries: Delivery) -> None:
        """Ack *deliveries* soon; those settled at the same time are acked together."""
        with self._lock:
            self._settled.extend(deliveries)
            if self._flush_is_due:
                return
            self._flush_is_due = True  # wake the I/O thread once per batch
        self.connection.call_soon(self._flush)

    def is_current(self, delivery: Delivery) -> bool:
        """Return whether the delivery's channel is open; if not, the broker delivers it again."""
        return delivery.generation == self._generation

    @property
    def unacked(self) -> int:
        """How many deliveries of the present channel are not acked yet."""
        return len(self._outstanding)

    def count(self, timeout: float) -> int | None:
        """Return the queue's number of consumers; None without an answer within *timeout* s."""
        answer: list[int] = []
        answered = Waiter()

        def on_answer(frame: Any) -> None:
            answer.append(frame.method.consumer_count - self.prefetch.is_switching)
            answered.notify_all()

        def ask() -> None:
            if self._channel is not None and self._channel.is_open:
                self._channel.queue_declare(self.queue, passive=True, callback=on_answer)

        self.connection.call(ask)
        return answer[0] if answered.wait_for(lambda: bool(answer), timeout) else None

    def cancel(
        self, on_cancelled: Callable[[], object] = lambda: None, *, is_quorum: bool = False
    ) -> None:
        """Ask the broker for no more deliveries; *on_cancelled* is called after the last one.

        It is not called if the channel is lost before. For a quorum queue the acks wait until the
        consumer is cancelled (see `QUIET_TIME`).
        """

        def begin() -> None:
            self._holds_acks = is_quorum
            quiet = clock.monotonic() - self._last_ack
            if is_quorum and quiet < QUIET_TIME:
                self.connection.call_later(QUIET_TIME - quiet, lambda: self._cancel(on_cancelled))
            else:
                self._cancel(on_cancelled)

        self.connection.call(begin)

    def close(self, timeout: float) -> None:
        """Send the acks that are due and close; the broker requeues what is not acked."""
        self.connection.call(self._release_acks)
        self.connection.close(timeout)

    # ---- I/O thread ----------------------------------------------------------------------------

    def opened(self, channel: Channel, ready: Callable[[], None]) -> None:
        """Session: declare, set the prefetch, consume."""
        self._generation += 1
        self._outstanding.clear()
        self._channel = channel
        channel.add_on_cancel_callback(self._on_cancelled)
        self.connection.declarer.declare(channel)
        self._count_watched(channel)
        if self._recovered.is_due:
            self._recovered.count(channel)
        self._consumer_tags = []
        if self._quarantine:
            # In RabbitMQ, basic.qos sets the prefetch of each consumer that is started after it.
            channel.basic_qos(prefetch_count=1)
            self._consumer_tags.append(channel.basic_consume(self._quarantine, self._on_message))

        def on_consuming(_: Any) -> None:
            ready()
            if self._has_consumed:
                self._on_reconnected()
            self._has_consumed = True

        # A stream refuses it, and cannot be worked on; everywhere else 0 is the default.
        is_known = self.connection.declarer.is_declared(self.queue)
        self.prefetch.arguments = None if is_known else {"x-priority": 0}
        self.prefetch.begin(channel, self.queue, self._on_message, on_consuming)
        if self._exclusive_queue is not None:
            self._exclusive_queue.open(channel.connection)

    def lost(self, error: MousetrapError) -> None:
        """Session: remember what was delivered on this channel; the broker delivers it again.

        This process has survived, so none of these messages crashed it. But if only the channel was
        closed, the reason may be that the ack of one message timed out.
        """
        self._channel = None
        self._generation += 1
        if isinstance(error, ConnectionLost):
            self._recovered.connection_lost(self._outstanding.values())
        else:
            mark_ack_timeouts(self._outstanding.values(), self._being_handled())
        held = [
            each.as_held
            for each in self._outstanding.values()
            if each.properties.message_id
            and not each.is_possible_poison  # its earlier loss is not counted yet
        ]
        redeliveries.remember(self.queue, held)
        self._outstanding.clear()
        log.debug("%s: channel lost: %s", self.queue, error)

    def failed(self, error: MousetrapError) -> None:
        """Session: the connection will not be restored."""
        self._on_failed(error)

    def forked(self, error: MousetrapError) -> None:  # noqa: ARG002 -- `Worker` says it
        """Session: this is a forked child; the deliveries are its parent's."""
        self._channel = None
        self._generation += 1
        self._outstanding.clear()

    def _on_message(
        self,
        _: Channel,
        method: spec.Basic.Deliver,
        properties: AMQPProperties,
        body: bytes,
    ) -> None:
        self.connection.reset_backoff()
        delivery = Delivery(
            self._generation,
            method.delivery_tag,
            properties,
            body,
            is_possible_poison=method.redelivered,
            is_near_delivery_limit=method.redelivered and is_near_delivery_limit(properties),
            exchange=method.exchange,
        )
        if delivery.is_possible_poison and properties.message_id:
            has_ack_timed_out = redeliveries.recall(self.queue, properties.message_id)
            if has_ack_timed_out is not None:
                delivery.was_survived(has_ack_timed_out=has_ack_timed_out)
        if self._recovered.are_left:
            queue = self._quarantine if method.consumer_tag in self._consumer_tags else self.queue
            delivery.was_recovered = self._recovered.includes(queue, properties, method.redelivered)
        self._outstanding[delivery.tag] = delivery
        if self.prefetch.is_switching:
            self.prefetch.delivered(method.consumer_tag, delivery.tag)
        try:
            self._on_delivery(delivery)
        except Exception as error:  # noqa: BLE001 -- pika would take it for a broken connection
            problem = MousetrapError(
                f"{self.queue}: a delivery ended in {repr_of(error)}: a defect"
            )
            problem.__cause__ = error
            self._on_failed(problem)

    def _on_cancelled(self, _: Any) -> None:
        self.connection.replace_channel(
            ChannelLost(
                f"the broker cancelled the consumer: queue {self.queue!r} was deleted, or "
                f"{ack_timed_out()}"
            )
        )

    def _cancel(self, on_cancelled: Callable[[], object]) -> None:
        channel = self._channel
        if channel is None or not channel.is_open:
            return
        self.prefetch.keep()
        answers = 0

        def on_answer(_: Any) -> None:
            nonlocal answers
            answers += 1
            if answers == 3:  # all deliveries have come
                on_cancelled()
            elif channel.is_open:
                if answers == 1:
                    for tag in (*self._consumer_tags, *self.prefetch.end()):
                        cancel(channel, tag)
                    self._consumer_tags = []
                    self._release_acks()
                channel.basic_qos(prefetch_count=1, callback=on_answer)

        # The first answer shows that each consumer has begun: pika holds requests back, and a
        # cancel must not overtake them. Then two: a delivery may come after the next one.
        channel.basic_qos(prefetch_count=1, callback=on_answer)

    def _release_acks(self) -> None:
        self._holds_acks = False
        self._flush()

    def held(self) -> list[Delivery]:
        """Return the deliveries that are not acked, the oldest first (I/O thread only)."""
        self._flush()
        return list(self._outstanding.values())

    def _flush(self) -> None:
        """Ack what is settled; one frame acks all that came before the first unsettled one."""
        if self._holds_acks:
            return
        with self._lock:
            self._flush_is_due = False
            batch, self._settled = self._settled, deque()
        if self._channel is None or not self._channel.is_open:
            return
        self.prefetch.observe(len(self._outstanding), len(batch))
        settled = self.prefetch.held_back(batch) if self.prefetch.is_switching else batch
        # one that was given back while its outcome was published is acked twice: once is enough
        tags = [
            each.tag
            for each in settled
            if self.is_current(each) and self._outstanding.pop(each.tag, None) is not None
        ]
        if not tags:
            return
        self._last_ack = clock.monotonic()
        oldest = next(iter(self._outstanding), None)
        front = [tag for tag in tags if oldest is None or tag < oldest]
        if front:
            self._channel.basic_ack(max(front), multiple=True)
        for tag in tags:
            # A slow delivery must not delay the acks of those behind it.
            if oldest is not None and tag > oldest:
                self._channel.basic_ack(tag)

    @property
    def _renewal_interval(self) -> float:
        return self.settings.queue_expiry / 4  # seconds; three may fail before the queues expire

    def _renew(self) -> None:
        """Declare the queues again: for a classic queue that is a use, so it does not expire."""
        if self._channel is not None and self._channel.is_open:
            for each in (*self._declarations, *self._on_demand.used):
                if not isinstance(each, Declaration) or "x-expires" not in each.arguments:
                    continue
                # With a callback: a declaration without an answer is no use (measured on 4.3).
                self._channel.queue_declare(
                    each.name,
                    durable=True,
                    arguments=dict(each.arguments),
                    callback=lambda _: None,
                )
            self._count_watched(self._channel)
        self.connection.call_later(self._renewal_interval, self._renew)

    def _bind_again(self) -> None:
        """Bind again; if the exchange is gone, the channel is closed, and the next declares it."""
        if self._channel is not None and self._channel.is_open:
            for each in self._declarations:
                if isinstance(each, Binding):
                    declare(self._channel, each)
        self.connection.call_later(BINDING_INTERVAL, self._bind_again)

    def _look_for_overdue(self, overdue: OverdueAcks) -> None:
        """If a message is held for long, make the broker look whether its ack is overdue."""
        oldest = next(iter(self._outstanding.values()), None)
        if (
            oldest is not None
            and clock.monotonic() - oldest.received >= overdue_acks.INTERVAL
            and self._channel is not None
            and self._channel.is_open
        ):
            overdue.look(self._channel)
        self.connection.call_later(overdue_acks.INTERVAL, lambda: self._look_for_overdue(overdue))

    def _count_watched(self, channel: Channel) -> None:
        if self._watched:
            channel.queue_declare(self._watched, passive=True,
                callback=lambda frame: self._on_count(frame.method.message_count))  # fmt: skip
