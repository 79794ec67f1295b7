"""A channel: consumers, deliveries that wait for an ack, its beginning and end.

The methods that declare and bind are in `declaring`, those that publish in `publishing`. A method
of AMQP named ``basic.ack`` is the method ``basic_ack`` here, with the arguments of the
specification; what it answers is sent by it.
Threads: the server's own.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from mousetrap.embedded_broker import codec, methods
from mousetrap.embedded_broker.consumer import Consumer
from mousetrap.embedded_broker.declaring import REPLY_TO, Declaring
from mousetrap.embedded_broker.publishing import Publishing
from mousetrap.embedded_broker.queue import Entry, Queue
from mousetrap.embedded_broker.refusal import Refusal

if TYPE_CHECKING:
    from mousetrap.embedded_broker.connection import Connection

OVERVIEW = "amq.mousetrap.overview"  # got from like a queue: `overview` of the server, as JSON


class Held(NamedTuple):
    """A message that was delivered and not settled; one that was got has no consumer."""

    tag: int
    entry: Entry
    queue: Queue
    consumer: Consumer | None

    @property
    def settled_at(self) -> tuple[str, bool, int, str]:
        """Where it comes among those that are settled together: consumers come by their tags."""
        if self.consumer is None:
            return self.queue.name, False, self.tag, ""
        return self.queue.name, True, 0, self.consumer.tag

    @property
    def returned_at(self) -> tuple[bool, int, str]:
        """Where it comes among those of its quorum queue when its channel closes.

        What RabbitMQ's own names of consumers make of it: those come in the order in which they
        began, then what was got, by the text of its delivery tag.
        """
        if self.consumer is None:
            return True, 0, str(self.tag)
        return False, self.consumer.place, ""


_SETTLED_AT = attrgetter("settled_at")


class Channel(Declaring, Publishing):
    """One channel of a connection."""

    def __init__(self, connection: Connection, number: int) -> None:
        super().__init__()
        self.connection = connection
        self.vhost = connection.open_vhost
        self.number = number
        self.is_closing = False  # by us: everything but the answer to that is ignored
        self.is_flowing = True
        self.prefetch = 0
        self.consumers: dict[str, Consumer] = {}
        self.last_queue = ""  # the one that an empty name means
        self._unacked: dict[int, Held] = {}  # by delivery tag
        self._tag = 0

    # frames

    def on_method(self, payload: bytes) -> None:
        """Carry out a method.

        Raises:
            Refusal: it is not done; by the level of that, the channel or the connection closes.
        """
        try:
            name, arguments = methods.decode(payload)
        except KeyError:
            raise Refusal(540, f"there is no method {payload[:4]!r}") from None
        except codec.Malformed as error:
            raise Refusal(error.code, str(error)) from None
        if self.is_closing:
            if name == "channel.close":
                self.send("channel.close_ok")
            elif name != "channel.close_ok":
                return
            self.connection.forget(self)
            return
        if self.expects_content:
            raise Refusal(505, f"expected content header for class 60, got {name} instead")
        answer = getattr(self, name.replace(".", "_"), None)
        if answer is None:
            raise Refusal(503, f"a client does not send {name}")
        arguments.pop("ticket", None)
        answer(**arguments)

    # consuming

    def basic_qos(
        self,
        prefetch_size: int,
        prefetch_count: int,
        global_qos: bool,  # noqa: ARG002 -- RabbitMQ 4.3, where it is denied, ignores it, too
    ) -> None:
        """Set the prefetch of consumers to come."""
        if prefetch_size:
            raise Refusal(540, f"prefetch_size!=0 ({prefetch_size})")
        self.prefetch = prefetch_count
        self.send("basic.qos_ok")

    def basic_consume(
        self,
        queue: str,
        consumer_tag: str,
        no_local: bool,  # noqa: ARG002 -- RabbitMQ ignores it, too
        no_ack: bool,
        exclusive: bool,
        nowait: bool,
        arguments: dict[str, Any],
    ) -> None:
        """Deliver what comes into *queue* from now on."""
        if queue.startswith(REPLY_TO):
            raise Refusal(540, "the embedded broker has no direct reply-to: declare a queue")
        if consumer_tag in self.consumers:
            raise Refusal(530, f"attempt to reuse consumer tag '{consumer_tag}'")
        found = self.usable_queue(queue)
        priority = arguments.get("x-priority", 0)
        if isinstance(priority, bool) or not isinstance(priority, int):
            raise Refusal(406, "x-priority is not a whole number")
        is_taken = any(each.is_exclusive for each in found.consumers)
        if (is_taken or (exclusive and found.consumers)) and not found.is_quorum:
            where = f"queue '{found.name}' in vhost '{self.vhost.name}'"
            raise Refusal(403, f"{where} in exclusive use")
        if exclusive and found.arguments.single_active:
            raise Refusal(403, f"queue '{found.name}' has a single active consumer")
        tag = consumer_tag or f"amq.ctag-{secrets.token_urlsafe(16)}"
        consumer = self._again(found, tag) or Consumer(self, found, tag)
        consumer.begin(no_ack=no_ack, exclusive=exclusive, priority=priority)
        self.consumers[tag] = consumer
        if not nowait:
            self.send("basic.consume_ok", tag)
        found.add(consumer)
        found.deliver()

    def _again(self, queue: Queue, tag: str) -> Consumer | None:
        """Who comes back for a quorum queue: one with this tag that still holds a message."""
        if not queue.is_quorum:
            return None
        held = (each.consumer for each in self._unacked.values() if each.queue is queue)
        consumer = next((each for each in held if each is not None and each.tag == tag), None)
        if consumer is not None and consumer in queue.leaving:
            queue.leaving.remove(consumer)
        return consumer

    def basic_cancel(self, consumer_tag: str, nowait: bool) -> None:
        """Deliver no more; what was delivered can still be acked."""
        consumer = self.consumers.pop(consumer_tag, None)
        if not nowait:
            self.send("basic.cancel_ok", consumer_tag)
        if consumer is not None:
            if consumer.held:
                consumer.queue.leaving.append(consumer)
            consumer.queue.remove(consumer)

    def basic_cancel_ok(self, consumer_tag: str) -> None:
        """The client knows that its consumer is gone."""

    def channel_flow(self, active: bool) -> None:
        """Answer; RabbitMQ has no longer any other use of it than to refuse a stop."""
        if not active:
            raise Refusal(540, "active=false")
        self.send("channel.flow_ok", True)

    def basic_get(self, queue: str, no_ack: bool) -> None:
        """Give one message, or say that there is none; the broker's state from `OVERVIEW`."""
        if queue == OVERVIEW:
            state = json.dumps(self.connection.overview(), default=str).encode()
            ok = methods.encode("basic.get_ok", 0, False, "", OVERVIEW, 0)
            self.send_content(ok, b"\0\0", state)
            return
        found = self.usable_queue(queue)
        entry = found.get()
        if entry is None:
            self.send("basic.get_empty", "")
            return
        is_redelivered, message = entry.is_redelivered, entry.message
        properties = self.outgoing(found, entry)
        tag = self.given(entry, found, None, is_settled=no_ack)
        place = (message.exchange, message.routing_key)
        ok = methods.encode("basic.get_ok", tag, is_redelivered, *place, found.ready)
        self.send_content(ok, properties, message.body)

    def given(
        self,
        entry: Entry,
        queue: Queue,
        consumer: Consumer | None,
        *,
        is_settled: bool,
    ) -> int:
        """Number a delivery, and remember it unless nobody will ack it."""
        self._tag += 1
        if is_settled:
            queue.acked([entry])
        else:
            self._unacked[self._tag] = Held(self._tag, entry, queue, consumer)
            if consumer is not None:
                consumer.held += 1
            else:
                queue.gets += 1
        return self._tag

    def outgoing(self, queue: Queue, entry: Entry) -> bytes:
        """Return the properties to send: a quorum queue says how often it has tried before."""
        if not queue.is_quorum or not entry.is_redelivered:
            return entry.message.properties
        counts = {"x-acquired-count": entry.acquired, "x-delivery-count": entry.deliveries or None}
        return entry.message.but(headers=counts).properties

    # settling

    def basic_ack(self, delivery_tag: int, multiple: bool) -> None:
        """Forget what was delivered."""
        self._settle(self._taken(delivery_tag, multiple), Queue.acked)

    def basic_nack(self, delivery_tag: int, multiple: bool, requeue: bool) -> None:
        """Put back, or dead-letter, what was delivered."""
        how = Queue.returned if requeue else Queue.rejected
        self._settle(self._taken(delivery_tag, multiple), partial(how, has_failed=False))

    def basic_reject(self, delivery_tag: int, requeue: bool) -> None:
        """Do the same with one message."""
        how = Queue.returned if requeue else Queue.rejected
        self._settle(self._taken(delivery_tag, False), partial(how, has_failed=True))

    def basic_recover(self, requeue: bool) -> None:
        """Put everything back that is not acked."""
        self.basic_recover_async(requeue)
        self.send("basic.recover_ok")

    def basic_recover_async(self, requeue: bool) -> None:
        """Do the same without an answer."""
        if not requeue:
            raise Refusal(540, "requeue=false")
        self._settle(self._taken(0, True), partial(Queue.returned, has_failed=False))

    def _taken(self, tag: int, multiple: bool) -> list[Held]:
        """Take out what *tag* names, in the order of the tags."""
        if multiple:
            if tag and tag not in self._unacked:
                raise Refusal(406, f"unknown delivery tag {tag}")
            tags = []
            for each in self._unacked:
                if tag and each > tag:
                    break
                tags.append(each)
        elif tag in self._unacked:
            tags = [tag]
        else:
            raise Refusal(406, f"unknown delivery tag {tag}")
        return [self._unacked.pop(each) for each in tags]

    def _settle(self, taken: list[Held], how: Callable[[Queue, list[Entry]], None]) -> None:
        """Settle consumer after consumer, by tag; what was got comes first, one by one.

        As in RabbitMQ, where each may take messages again before the next one's are settled.
        """
        for _, each in groupby(sorted(taken, key=_SETTLED_AT), key=_SETTLED_AT):
            group = list(each)
            queue = group[0].queue
            self._free(group)
            queue.unblock()
            self._apply(how, queue, group)
            queue.deliver()

    def _free(self, held: list[Held]) -> None:
        for each in held:
            if each.consumer is None:
                each.queue.gets -= 1
                continue
            # a classic queue knows consumers by their tags: one that began again has the room
            again = None if each.queue.is_quorum else self.consumers.get(each.consumer.tag)
            consumer = again if again and again.queue is each.queue else each.consumer
            consumer.held -= 1

    def _apply(
        self, how: Callable[[Queue, list[Entry]], None], queue: Queue, held: list[Held]
    ) -> None:
        if queue.is_deleted:  # and they with it
            how = Queue.acked
        how(queue, [each.entry for each in held])

    # the end

    def channel_open(self, out_of_band: str) -> None:  # noqa: ARG002 -- of the specification
        """Refuse: it is open."""
        raise Refusal(504, "second 'channel.open' seen")

    def channel_close(self, **_: Any) -> None:
        """Close as the client wishes."""
        self.release()
        self.send("channel.close_ok")
        self.connection.forget(self)

    def refuse(self, refusal: Refusal, method: bytes) -> None:
        """Close because of an error and wait for the client to say that it knows."""
        self.flush_confirms()
        self.release()
        self.is_closing = True
        self.forget_content()
        numbers = int.from_bytes(method[:2], "big"), int.from_bytes(method[2:4], "big")
        self.send("channel.close", refusal.code, refusal.text, *numbers)

    def release(self) -> None:
        """Let consumers go and put back what is not acked, in its order."""
        consumers, self.consumers = list(self.consumers.values()), {}
        taken = self._taken(0, True)
        self._free(taken)
        by_queue: dict[Queue, list[Held]] = {}
        for each in taken:
            by_queue.setdefault(each.queue, []).append(each)
        for consumer in consumers:
            by_queue.setdefault(consumer.queue, [])
        with self.vhost.posting_later():
            for consumer in consumers:
                if consumer in consumer.queue.consumers:
                    consumer.queue.let_go(consumer)
            for queue, held in by_queue.items():
                if queue.is_quorum:
                    held.sort(key=lambda each: each.returned_at)
                if held:
                    self._apply(partial(Queue.returned, has_failed=True), queue, held)
            for queue in by_queue:
                queue.deliver()

    def send(self, name: str, *values: Any) -> None:
        """Send a method."""
        self.connection.send_frame(1, self.number, methods.encode(name, *values))

    def send_content(self, method: bytes, properties: bytes, body: bytes) -> None:
        """Send a method with content, in frames that the client takes."""
        self.connection.send_content(self.number, method, properties, body)
