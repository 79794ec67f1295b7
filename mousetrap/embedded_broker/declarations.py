"""The methods of a channel that declare, bind, purge and delete.

A method of AMQP named ``queue.bind`` is the method ``queue_bind`` here, with the arguments of the
specification. The checks are made in RabbitMQ's order, because a client sees the first that fails.
Threads: the server's own.
"""

from __future__ import annotations

from typing import Any

from mousetrap.embedded_broker import arguments as queue_arguments
from mousetrap.embedded_broker.amqp_error import AmqpError
from mousetrap.embedded_broker.channel_output import ChannelConnection, ChannelOutput
from mousetrap.embedded_broker.direct_reply import REPLY_TO
from mousetrap.embedded_broker.exchange import TYPES, Binding, Exchange
from mousetrap.embedded_broker.queue import Queue
from mousetrap.embedded_broker.vhost import VirtualHost

MAX_HASHES = 2  # "#" wildcards in the binding key of a topic exchange, since RabbitMQ 4.3


class Declarations:
    """Declares, binds and deletes the exchanges and queues that one channel names."""

    def __init__(
        self, connection: ChannelConnection, vhost: VirtualHost, output: ChannelOutput
    ) -> None:
        self._connection = connection
        self._vhost = vhost
        self._output = output
        self._last_queue = ""  # declared last on this channel: an empty name means this queue

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
        """Declare an exchange; if it exists, check that it is the same."""
        if passive:
            self._check_not_default(exchange)
            self._vhost.exchange(exchange)
        else:
            self._declare_exchange(
                Exchange(exchange, type, durable, auto_delete, internal, arguments)
            )
        if not nowait:
            self._output.send("exchange.declare_ok")

    def _declare_exchange(self, wanted: Exchange) -> None:
        self._check_not_default(wanted.name)
        if wanted.type not in TYPES:
            if wanted.type == "x-local-random":  # RabbitMQ has this one without a plugin
                why = f"the embedded broker has no exchange type '{wanted.type}': use RabbitMQ"
                raise AmqpError(540, why)
            raise AmqpError(406, f"unknown exchange type '{wanted.type}'")
        current = self._vhost.exchanges.get(wanted.name)
        if current is None:
            if wanted.name.startswith("amq."):
                why = f"exchange name '{wanted.name}' contains reserved prefix 'amq.*'"
                raise AmqpError(403, why)
            self._vhost.exchanges[wanted.name] = wanted
            return
        where = f"exchange '{wanted.name}' in vhost '{self._vhost.name}'"
        for name in ("type", "durable", "auto_delete", "internal"):
            self._check_same(name, getattr(wanted, name), getattr(current, name), where)
        name = "alternate-exchange"
        self._check_same(name, wanted.arguments.get(name), current.arguments.get(name), where)

    def exchange_delete(self, exchange: str, if_unused: bool, nowait: bool) -> None:
        """Delete an exchange; as in RabbitMQ, it is no error if it does not exist."""
        self._check_not_default(exchange)
        if exchange.startswith("amq."):
            raise AmqpError(403, f"exchange name '{exchange}' contains reserved prefix 'amq.*'")
        found = self._vhost.exchanges.get(exchange)
        if found is not None:
            if if_unused and found.bindings:
                raise AmqpError(406, f"exchange '{exchange}' in vhost '{self._vhost.name}' in use")
            self._vhost.delete_exchange(found)
        if not nowait:
            self._output.send("exchange.delete_ok")

    def exchange_bind(
        self, destination: str, source: str, routing_key: str, nowait: bool,
        arguments: dict[str, Any],
    ) -> None:  # fmt: skip
        """Bind one exchange to another."""
        binding = self._make_binding("exchange", source, destination, routing_key, arguments)
        self._vhost.bind(binding)
        if not nowait:
            self._output.send("exchange.bind_ok")

    def exchange_unbind(
        self, destination: str, source: str, routing_key: str, nowait: bool,
        arguments: dict[str, Any],
    ) -> None:  # fmt: skip
        """Remove the binding of one exchange to another."""
        self._check_not_default(source)
        self._check_not_default(destination)
        if source in self._vhost.exchanges and destination in self._vhost.exchanges:
            binding = self._make_binding("exchange", source, destination, routing_key, arguments)
            self._vhost.unbind(binding)
        if not nowait:  # also if it was not bound
            self._output.send("exchange.unbind_ok")

    def _make_binding(
        self, kind: str, source: str, destination: str, routing_key: str, given: dict[str, Any]
    ) -> Binding:
        self._check_not_default(source)
        if kind == "exchange":
            self._check_not_default(destination)
            self._vhost.exchange(destination)
        found = self._vhost.exchange(source)
        if found.type == "headers":
            match = given.get("x-match", "all")
            if match not in ("all", "any", "all-with-x", "any-with-x"):
                why = f"Invalid x-match field value {match!r}"
                raise AmqpError(406, f"{why}; expected all, any, all-with-x, or any-with-x")
        count = routing_key.split(".").count("#") if found.type == "topic" else 0
        if count > MAX_HASHES:
            why = f"Topic binding key '{routing_key}' uses {count} '#' wildcards"
            raise AmqpError(406, f"{why}, at most {MAX_HASHES} are allowed")
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
        """Declare a queue; if it exists, check that it is the same."""
        if queue == REPLY_TO or (passive and queue in self._vhost.reply_consumers):
            self._output.send("queue.declare_ok", queue, 0, 1)  # as in RabbitMQ
            return
        if passive:
            found = self.usable_queue(queue)
        else:
            found = self._declare_queue(queue, durable, exclusive, auto_delete, arguments)
        self._last_queue = found.name
        if not nowait:
            if found.arguments.type == "classic":  # RabbitMQ asks the process of a classic queue
                found.touch()  # for the counts, and that renews its x-expires
            self._output.send("queue.declare_ok", found.name, found.ready, found.consumer_count)

    def _declare_queue(
        self, name: str, durable: bool, exclusive: bool, auto_delete: bool, given: dict[str, Any]
    ) -> Queue:
        current = self._vhost.queues.get(name)
        if current is not None:
            self._check_same_queue(current, durable, exclusive, auto_delete, given)
            return current
        if name.startswith("amq."):
            raise AmqpError(403, f"queue name '{name}' contains reserved prefix 'amq.*'")
        name = name or self._vhost.new_queue_name()
        rules = queue_arguments.parse(given, name, self._vhost.name)
        if rules.type == "quorum":
            cannot = {
                "non-durable": not durable,
                "exclusive": exclusive,
                "auto-delete": auto_delete,
            }
            for what, wrong in cannot.items():
                if wrong:
                    why = f"invalid property '{what}' for queue '{name}'"
                    raise AmqpError(406, f"{why} in vhost '{self._vhost.name}'")
        made = Queue(
            self._vhost, name, durable=durable, auto_delete=auto_delete,
            owner=self._connection if exclusive else None, given=given, arguments=rules,
        )  # fmt: skip
        self._vhost.queues[name] = made
        return made

    def _check_same_queue(
        self, current: Queue, durable: bool, exclusive: bool, auto_delete: bool,
        given: dict[str, Any],
    ) -> None:  # fmt: skip
        if current.owner is not (self._connection if exclusive else None):
            raise self._locked_error(current.name)
        where = f"queue '{current.name}' in vhost '{self._vhost.name}'"
        self._check_same("durable", durable, current.durable, where)
        self._check_same("auto_delete", auto_delete, current.auto_delete, where)
        kind = current.arguments.type
        for name, wanted, now in queue_arguments.differences(given, current.given, kind):
            raise self._inequivalent(name, wanted, now, where)

    def queue_bind(
        self, queue: str, exchange: str, routing_key: str, nowait: bool, arguments: dict[str, Any]
    ) -> None:
        """Bind a queue to an exchange."""
        if self._resolve_name(queue) in self._vhost.queues:
            self._vhost.exchange(exchange)  # as RabbitMQ: a 404 comes before the check of the owner
        found = self.usable_queue(queue)
        # both are empty: bind the queue that was declared last, with its name as the key
        key = found.name if not queue and not routing_key else routing_key
        self._vhost.bind(self._make_binding("queue", exchange, found.name, key, arguments))
        if not nowait:
            self._output.send("queue.bind_ok")

    def queue_unbind(
        self, queue: str, exchange: str, routing_key: str, arguments: dict[str, Any]
    ) -> None:
        """Remove the binding of a queue to an exchange."""
        self._check_not_default(exchange)
        name = self._resolve_name(queue)
        if name in self._vhost.queues and exchange in self._vhost.exchanges:
            key = name if not queue and not routing_key else routing_key
            binding = self._make_binding("queue", exchange, name, key, arguments)
            if binding in self._vhost.exchange(exchange).bindings:
                self.usable_queue(queue)
                self._vhost.unbind(binding)
        self._output.send("queue.unbind_ok")  # also if it was not bound, for any queue

    def queue_purge(self, queue: str, nowait: bool) -> None:
        """Drop all ready messages of a queue."""
        count = self.usable_queue(queue).purge()
        if not nowait:
            self._output.send("queue.purge_ok", count)

    def queue_delete(self, queue: str, if_unused: bool, if_empty: bool, nowait: bool) -> None:
        """Delete a queue; as in RabbitMQ, it is no error if it does not exist."""
        name = self._resolve_name(queue)
        count = 0
        if name in self._vhost.queues:
            found = self.usable_queue(queue)
            where = f"queue '{name}' in vhost '{self._vhost.name}'"
            if found.is_quorum and (if_unused or if_empty):
                raise AmqpError(540, f"cannot delete {where} with conditions: it is a quorum queue")
            if if_unused and found.consumers:
                raise AmqpError(406, f"{where} in use")
            if if_empty and found.ready:
                raise AmqpError(406, f"{where} is not empty")
            count = self._vhost.delete_queue(found)
        if not nowait:
            self._output.send("queue.delete_ok", count)

    def usable_queue(self, name: str) -> Queue:
        """Return the queue that *name* means.

        Raises:
            AmqpError: 404, it does not exist; 405, it is exclusive to another connection.
        """
        found = self._vhost.queue(self._resolve_name(name))
        if found.owner not in (None, self._connection):
            raise self._locked_error(found.name)
        return found

    def _resolve_name(self, name: str) -> str:
        if name:
            return name
        if not self._last_queue:
            raise AmqpError(404, "no previously declared queue")
        return self._last_queue

    def _locked_error(self, name: str) -> AmqpError:
        return AmqpError(
            405,
            f"cannot obtain exclusive access to locked queue '{name}' in vhost "
            f"'{self._vhost.name}'. It could be originally declared on another connection or the "
            f"exclusive property value does not match that of the original declaration.",
        )

    def _check_same(self, name: str, wanted: Any, current: Any, where: str) -> None:
        if wanted != current:
            raise self._inequivalent(name, wanted, current, where)

    def _inequivalent(self, name: str, wanted: Any, current: Any, where: str) -> AmqpError:
        received, now = (
            "none" if value is None else f"'{str(value).lower()}'" for value in (wanted, current)
        )
        why = f"inequivalent arg '{name}' for {where}: received {received} but current is {now}"
        return AmqpError(406, why)

    def _check_not_default(self, exchange: str) -> None:
        if exchange == "":
            raise AmqpError(403, "operation not permitted on the default exchange")
