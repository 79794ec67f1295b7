"""The methods of a channel that declare, bind, purge and delete.

The checks come in RabbitMQ's order, since a client sees the first that fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mousetrap.embedded_broker import arguments as queue_arguments
from mousetrap.embedded_broker.exchange import TYPES, Binding, Exchange
from mousetrap.embedded_broker.queue import Queue
from mousetrap.embedded_broker.refusal import Refusal

if TYPE_CHECKING:
    from mousetrap.embedded_broker.connection import Connection
    from mousetrap.embedded_broker.vhost import VirtualHost


REPLY_TO = "amq.rabbitmq.reply-to"
MOST_HASHES = 2  # in the key of a binding of a topic exchange, since RabbitMQ 4.3


class Declaring:
    """What a channel does to exchanges, queues and bindings."""

    connection: Connection
    vhost: VirtualHost
    last_queue: str

    def send(self, name: str, *values: Any) -> None:
        """Send a method."""
        raise NotImplementedError

    # exchanges

    def exchange_declare(
        self,
        exchange: str,
        type: str,
        passive: bool,
        durable: bool,
        auto_delete: bool,
        internal: bool,
        nowait: bool,
        arguments: dict[str, Any],
    ) -> None:
        """Make an exchange, or make sure that it is as described."""
        if passive:
            self.vhost.exchange(exchange)
        else:
            self._declare_exchange(
                Exchange(exchange, type, durable, auto_delete, internal, arguments)
            )
        if not nowait:
            self.send("exchange.declare_ok")

    def _declare_exchange(self, wanted: Exchange) -> None:
        self._not_default(wanted.name)
        if wanted.type not in TYPES:
            if wanted.type == "x-local-random":  # the one that RabbitMQ has without a plugin
                why = f"the embedded broker has no exchange type '{wanted.type}': use RabbitMQ"
                raise Refusal(540, why)
            raise Refusal(406, f"unknown exchange type '{wanted.type}'")
        current = self.vhost.exchanges.get(wanted.name)
        if current is None:
            if wanted.name.startswith("amq."):
                why = f"exchange name '{wanted.name}' contains reserved prefix 'amq.*'"
                raise Refusal(403, why)
            self.vhost.exchanges[wanted.name] = wanted
            return
        where = f"exchange '{wanted.name}' in vhost '{self.vhost.name}'"
        for name in ("type", "durable", "auto_delete", "internal"):
            self._same(name, getattr(wanted, name), getattr(current, name), where)
        name = "alternate-exchange"
        self._same(name, wanted.arguments.get(name), current.arguments.get(name), where)

    def exchange_delete(self, exchange: str, if_unused: bool, nowait: bool) -> None:
        """Delete an exchange; one that is not there is deleted already."""
        self._not_default(exchange)
        if exchange.startswith("amq."):
            raise Refusal(403, f"exchange name '{exchange}' contains reserved prefix 'amq.*'")
        found = self.vhost.exchanges.get(exchange)
        if found is not None:
            if if_unused and found.bindings:
                raise Refusal(406, f"exchange '{exchange}' in vhost '{self.vhost.name}' in use")
            self.vhost.delete_exchange(found)
        if not nowait:
            self.send("exchange.delete_ok")

    def exchange_bind(
        self, destination: str, source: str, routing_key: str, nowait: bool,
        arguments: dict[str, Any],
    ) -> None:  # fmt: skip
        """Have one exchange pass messages to another."""
        binding = self._binding("exchange", source, destination, routing_key, arguments)
        self.vhost.bind(binding)
        if not nowait:
            self.send("exchange.bind_ok")

    def exchange_unbind(
        self, destination: str, source: str, routing_key: str, nowait: bool,
        arguments: dict[str, Any],
    ) -> None:  # fmt: skip
        """End that."""
        self._not_default(source)
        self._not_default(destination)
        if source in self.vhost.exchanges and destination in self.vhost.exchanges:
            binding = self._binding("exchange", source, destination, routing_key, arguments)
            self.vhost.unbind(binding)
        if not nowait:  # also for what was not bound
            self.send("exchange.unbind_ok")

    def _binding(
        self, kind: str, source: str, destination: str, routing_key: str, given: dict[str, Any]
    ) -> Binding:
        self._not_default(source)
        if kind == "exchange":
            self._not_default(destination)
            self.vhost.exchange(destination)
        found = self.vhost.exchange(source)
        if found.type == "headers":
            match = given.get("x-match", "all")
            if match not in ("all", "any", "all-with-x", "any-with-x"):
                why = f"Invalid x-match field value {match!r}"
                raise Refusal(406, f"{why}; expected all, any, all-with-x, or any-with-x")
        many = routing_key.split(".").count("#") if found.type == "topic" else 0
        if many > MOST_HASHES:
            why = f"Topic binding key '{routing_key}' uses {many} '#' wildcards"
            raise Refusal(406, f"{why}, at most {MOST_HASHES} are allowed")
        return Binding(source, kind, destination, routing_key, tuple(sorted(given.items())))

    # queues

    def queue_declare(
        self,
        queue: str,
        passive: bool,
        durable: bool,
        exclusive: bool,
        auto_delete: bool,
        nowait: bool,
        arguments: dict[str, Any],
    ) -> None:
        """Make a queue, or make sure that it is as described."""
        if passive and queue == REPLY_TO:  # as RabbitMQ; who consumes from it is refused
            self.send("queue.declare_ok", queue, 0, 1)
            return
        if passive:
            found = self.usable_queue(queue)
            found.touch()
        else:
            found = self._declare_queue(queue, durable, exclusive, auto_delete, arguments)
        self.last_queue = found.name
        if not nowait:
            self.send("queue.declare_ok", found.name, found.ready, found.consumer_count)

    def _declare_queue(
        self, name: str, durable: bool, exclusive: bool, auto_delete: bool, given: dict[str, Any]
    ) -> Queue:
        current = self.vhost.queues.get(name)
        if current is not None:
            self._same_queue(current, durable, exclusive, auto_delete, given)
            current.touch()
            return current
        if name.startswith("amq."):
            raise Refusal(403, f"queue name '{name}' contains reserved prefix 'amq.*'")
        name = name or self.vhost.new_queue_name()
        rules = queue_arguments.read(given, name, self.vhost.name)
        if rules.type == "quorum":
            cannot = {
                "non-durable": not durable,
                "exclusive": exclusive,
                "auto-delete": auto_delete,
            }
            for what, wrong in cannot.items():
                if wrong:
                    why = f"invalid property '{what}' for queue '{name}'"
                    raise Refusal(406, f"{why} in vhost '{self.vhost.name}'")
        made = Queue(
            self.vhost, name, durable=durable, auto_delete=auto_delete,
            owner=self.connection if exclusive else None, given=given, arguments=rules,
        )  # fmt: skip
        self.vhost.queues[name] = made
        return made

    def _same_queue(
        self, current: Queue, durable: bool, exclusive: bool, auto_delete: bool,
        given: dict[str, Any],
    ) -> None:  # fmt: skip
        if current.owner is not (self.connection if exclusive else None):
            raise self._locked(current.name)
        where = f"queue '{current.name}' in vhost '{self.vhost.name}'"
        self._same("durable", durable, current.durable, where)
        self._same("auto_delete", auto_delete, current.auto_delete, where)
        for name in queue_arguments.COMPARED:
            default = "classic" if name == "x-queue-type" else None
            self._same(name, given.get(name, default), current.given.get(name, default), where)

    def queue_bind(
        self, queue: str, exchange: str, routing_key: str, nowait: bool, arguments: dict[str, Any]
    ) -> None:
        """Have an exchange pass messages to a queue."""
        if self._named(queue) in self.vhost.queues:
            self.vhost.exchange(exchange)  # as RabbitMQ: both are there, before it asks whose
        found = self.usable_queue(queue)
        # both empty: the queue that was declared last, under its own name
        key = found.name if not queue and not routing_key else routing_key
        self.vhost.bind(self._binding("queue", exchange, found.name, key, arguments))
        if not nowait:
            self.send("queue.bind_ok")

    def queue_unbind(
        self, queue: str, exchange: str, routing_key: str, arguments: dict[str, Any]
    ) -> None:
        """End that."""
        self._not_default(exchange)
        name = self._named(queue)
        if name in self.vhost.queues and exchange in self.vhost.exchanges:
            key = name if not queue and not routing_key else routing_key
            binding = self._binding("queue", exchange, name, key, arguments)
            if binding in self.vhost.exchange(exchange).bindings:
                self.usable_queue(queue)
                self.vhost.unbind(binding)
        self.send("queue.unbind_ok")  # also for what was not bound, whoever owns the queue

    def queue_purge(self, queue: str, nowait: bool) -> None:
        """Throw away what is ready."""
        many = self.usable_queue(queue).purge()
        if not nowait:
            self.send("queue.purge_ok", many)

    def queue_delete(self, queue: str, if_unused: bool, if_empty: bool, nowait: bool) -> None:
        """Delete a queue; one that is not there is deleted already."""
        name = self._named(queue)
        many = 0
        if name in self.vhost.queues:
            found = self.usable_queue(queue)
            where = f"queue '{name}' in vhost '{self.vhost.name}'"
            if found.is_quorum and (if_unused or if_empty):
                raise Refusal(540, f"cannot delete {where} with conditions: it is a quorum queue")
            if if_unused and found.consumers:
                raise Refusal(406, f"{where} in use")
            if if_empty and found.ready:
                raise Refusal(406, f"{where} is not empty")
            many = self.vhost.delete_queue(found)
        if not nowait:
            self.send("queue.delete_ok", many)

    def usable_queue(self, name: str) -> Queue:
        """Return a queue that this connection may use."""
        found = self.vhost.queue(self._named(name))
        if found.owner not in (None, self.connection):
            raise self._locked(found.name)
        return found

    def _named(self, name: str) -> str:
        if name:
            return name
        if not self.last_queue:
            raise Refusal(404, "no previously declared queue")
        return self.last_queue

    def _locked(self, name: str) -> Refusal:
        return Refusal(
            405,
            f"cannot obtain exclusive access to locked queue '{name}' in vhost "
            f"'{self.vhost.name}'. It could be originally declared on another connection or the "
            f"exclusive property value does not match that of the original declaration.",
        )

    def _same(self, name: str, wanted: Any, current: Any, where: str) -> None:
        if wanted == current:
            return
        received, now = (
            "none" if value is None else f"'{str(value).lower()}'" for value in (wanted, current)
        )
        why = f"inequivalent arg '{name}' for {where}: received {received} but current is {now}"
        raise Refusal(406, why)

    def _not_default(self, exchange: str) -> None:
        if exchange == "":
            raise Refusal(403, "operation not permitted on the default exchange")
