"""Publishes what comes of a delivery, and publishes it again until the broker has confirmed it.

A message that the broker does not confirm keeps its source unacked. It is published again, at most
once a second, until it is confirmed or the channel of its source is gone: then the broker delivers
the source again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TypeAlias

from mousetrap.amqp.confirming import RESEND_DELAY
from mousetrap.amqp.consumer import Consumer
from mousetrap.amqp.delivery import Delivery
from mousetrap.amqp.io_thread import IOThread
from mousetrap.amqp.lost_queues import LostQueues
from mousetrap.amqp.properties import AMQPProperties, sent_properties
from mousetrap.amqp.publisher import Publisher
from mousetrap.amqp.queues_on_demand import QueuesOnDemand
from mousetrap.amqp.receipt import Receipt
from mousetrap.display.safe_text import safe
from mousetrap.errors import MousetrapError, OutcomeUnknown
from mousetrap.model.exchanges import Exchange
from mousetrap.model.join_headers import JOINS, JoinQueue, death_notices
from mousetrap.model.message import Message
from mousetrap.model.outcome import pack_declared
from mousetrap.model.retry_policy import Replacement
from mousetrap.model.targets import Address, SentMessage
from mousetrap.model.topology import AnyDeclaration, Declaration
from mousetrap.runtime import clock, randomness
from mousetrap.settings import Settings
from mousetrap.worker.hooks import Hooks

log = logging.getLogger("mousetrap.worker.worker")

Publication: TypeAlias = tuple[Message, Address, AMQPProperties | None]
"""A message to publish, where to, and the properties that it has beside ours."""
OnOutcome: TypeAlias = Callable[[Receipt], None]

ROOM_CHECK_INTERVAL = 0.005  # seconds; a broker under load takes longer to confirm half a window


class Publications:
    """What one worker publishes by *publisher* for the deliveries of *consumer*.

    *declarations* are declared again when the broker returns a message because its queue was
    deleted. *on_given_up* is called with a delivery for which nothing is published any more.

    Threads: `publish` from any; the rest on the publisher's I/O thread.
    """

    def __init__(
        self,
        publisher: Publisher,
        consumer: Consumer,
        declarations: Sequence[AnyDeclaration],
        hooks: Hooks,
        on_given_up: Callable[[Delivery], object],
    ) -> None:
        self.problem = ""  # the last thing that went wrong; cleared by the next ack
        self.has_failed = False  # there is no way to go on: nothing is published again
        self._publisher = publisher
        self._consumer = consumer
        self._declarations = declarations
        self._hooks = hooks
        self._on_given_up = on_given_up
        self._targets: dict[str, Declaration] = {}  # of messages that handlers send, by wire name
        self._exchanges: set[Exchange] = set()  # to which handlers have sent messages
        self._delay_queues: set[str] = set()  # that the run of this namespace knows
        self._declared: dict[str, float] = {}  # those that were missing: when they were declared

    @property
    def can_publish(self) -> bool:
        """Whether the broker accepts messages now."""
        return self._publisher.connection.state == "open"

    def publish(
        self,
        message: Message,
        target: Address,
        properties: AMQPProperties | None,
        callback: OnOutcome,
    ) -> bool:
        """Publish *message* to *target*; return False if the publisher is closed or has failed.

        Waits while the publisher's window is full, except on the I/O thread.
        """
        while True:
            try:
                self._publisher.publish(message, target, properties=properties, callback=callback)
                return True
            except OutcomeUnknown as error:  # its window stayed full: the message was not sent
                self.problem = str(error)
            except MousetrapError:
                return False

    def publish_all(self, publications: Sequence[Publication], callback: OnOutcome) -> bool:
        """Publish each of *publications* as `publish` does; return False if one cannot be."""
        return all(self.publish(*each, callback) for each in publications)

    async def publish_all_in_turn(
        self, publications: Sequence[Publication], callback: OnOutcome
    ) -> bool:
        """Publish each of *publications* when there is room, while the event loop goes on."""
        for each in publications:
            problem_at = clock.monotonic() + self._publisher.settings.confirm_timeout
            while not self.has_room(1):
                await asyncio.sleep(ROOM_CHECK_INTERVAL)
                if clock.monotonic() > problem_at:
                    self.problem = str(self._publisher.window.full())
            if not self.publish(*each, callback):
                return False
        return True

    def has_room(self, number: int) -> bool:
        """Return whether *number* messages can be published now without waiting."""
        return self._publisher.window.has_room(number)

    def of(self, sent: SentMessage) -> Publication:
        """Return *sent* as it is published; have its queue or exchange declared if it is missing.

        A queue is declared in the namespace of a run, a check or a test, that of a join everywhere.
        Otherwise a message to a queue that does not exist stays unconfirmed, and its source
        unacked, until it is declared.
        """
        target, options = sent.target, sent.options
        if isinstance(target, str):
            self._add_target(target)
            target = self._delayed(target, options.delay) if options.delay else target
        elif target.exchange not in self._exchanges:
            self._exchanges.add(target.exchange)
            topology = self._publisher.settings.topology
            self._publisher.declare(topology.exchange(target.exchange))
        properties = None if options.priority is None else sent_properties(options.priority)
        return sent.message, target, properties

    def death_notices(self, failure: Replacement) -> list[Publication]:
        """Return the notices to joins that wait for a message, if it is dead-lettered."""
        message = failure.copy
        if failure.delay is not None or JOINS not in message.headers:
            return []
        notices = death_notices(message, message.origin or "", failure.reason)
        return [self.of(SentMessage(*each)) for each in notices]

    def _delayed(self, queue: str, delay: float) -> str:
        name = self._publisher.delayed(queue, delay)
        if self._publisher.settings.queues_expire and name not in self._delay_queues:
            self._delay_queues.add(name)
            self._announce(self._publisher.settings.topology.wire_name(name))
        return name

    def _add_target(self, queue: str) -> None:
        settings = self._publisher.settings
        topology, is_of_join = settings.topology, isinstance(queue, JoinQueue)
        if settings.queues_expire or is_of_join:
            make = topology.join_queue if is_of_join else topology.work_queue
            if topology.wire_name(queue) not in self._targets:
                self._targets[topology.wire_name(queue)] = make(queue)

    def call_later(self, delay: float, function: Callable[[], object]) -> None:
        """Call *function* on the publisher's I/O thread in *delay* seconds."""
        self._publisher.connection.call_later(delay, function)

    def report(self, receipt: Receipt) -> None:
        """Call the hooks with a message that the broker has confirmed."""
        if self._hooks.published:
            self._hooks.call(self._hooks.published, receipt.message, receipt.target)

    def send_again_later(self, delivery: Delivery, receipt: Receipt) -> None:
        """Publish again what the broker did not confirm, unless its source was given up by then."""
        if receipt.state == "returned" and self._has_just_declared(receipt.queue):
            self._publisher.send_again(receipt)
            return
        self.problem = str(receipt.error)
        log.warning("%s: %s", safe(self._consumer.queue), receipt.error)
        delay = RESEND_DELAY * (1 + randomness.random())  # so at most once a second
        self.call_later(delay, lambda: self._send_again(delivery, receipt))

    def _has_just_declared(self, queue: str) -> bool:
        """Declare *queue* if it is a target; return whether it was declared in the last second.

        Several messages to it may have been returned before it existed.
        """
        if (target := self._targets.get(queue)) is None:
            return False
        if queue not in self._declared:
            self._declared[queue] = clock.monotonic()
            self._publisher.declare([target])
            self._announce(queue)
        return clock.monotonic() - self._declared[queue] < RESEND_DELAY

    def _announce(self, queue: str) -> None:
        """Let the run of this namespace know the queue *queue* (on the wire), which it deletes."""
        topology = self._publisher.settings.topology
        if topology.events_exchange:
            body = pack_declared(topology.plain_name(queue))
            self._publisher.publish_to_exchange(
                body, topology.events_exchange, topology.events_key, lambda _: None
            )

    def _send_again(self, delivery: Delivery, receipt: Receipt) -> None:
        if not self._consumer.is_current(delivery) or self.has_failed:
            self._on_given_up(delivery)  # its channel is gone: it will be delivered again
            return
        if receipt.state == "returned":
            # a queue was deleted
            self._publisher.declare([*self._declarations, *self._targets.values()])
        self._publisher.send_again(receipt)


class OutputConfirms:
    """Waits for the confirms of the outputs of one attempt, whose message is *delivery*.

    *on_all* is called when the broker has confirmed the last of *left*. *on_impossible* is called
    once, with the error, if one can never be published; without it, that one is published again
    like the others.

    Threads: `on_outcome` on the publisher's I/O thread.
    """

    __slots__ = ("_delivery", "_left", "_on_all", "_on_impossible", "_publications")

    def __init__(
        self,
        publications: Publications,
        delivery: Delivery,
        left: int,
        *,
        on_all: Callable[[], object],
        on_impossible: Callable[[MousetrapError | None], object] | None,
    ) -> None:
        self._publications = publications
        self._delivery = delivery
        self._left = left  # outputs that are not confirmed yet; below 0: one is impossible
        self._on_all = on_all
        self._on_impossible = on_impossible

    def on_outcome(self, receipt: Receipt) -> None:
        """Count a confirm; have the message of *receipt* published again after another answer."""
        if receipt.confirmed:
            self._publications.report(receipt)
            self._left -= 1
            if not self._left:
                self._on_all()
        elif receipt.is_final and self._on_impossible is not None:
            if self._left > 0:
                self._left = -1
                self._on_impossible(receipt.error)
        else:
            self._publications.send_again_later(self._delivery, receipt)


def new_publisher(
    settings: Settings,
    queue: str,
    declarations: Sequence[AnyDeclaration],
    on_demand: QueuesOnDemand,
    on_failed: Callable[[MousetrapError], object],
    io_thread: IOThread,
    lost_queues: LostQueues,
) -> Publisher:
    """Return the publisher of a worker of *queue*, not yet open.

    It declares *declarations* and the exchange of the outcomes at once, the queues of *on_demand*
    when a message is published to them.
    """
    purpose = f"worker {queue} publishes"
    publisher = Publisher(
        settings, purpose, on_failed=on_failed, on_demand=on_demand, io_thread=io_thread,
        lost_queues=lost_queues, is_finished_at_exit=False,
    )  # fmt: skip
    publisher.declare(declarations)
    if settings.events_exchange:
        publisher.declare([settings.topology.events()])
    return publisher
