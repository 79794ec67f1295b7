"""A virtual host: its exchanges, queues and bindings, and how it routes messages.

Threads: the server's own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mousetrap.embedded_broker.amqp_error import no_exchange, no_queue
from mousetrap.embedded_broker.clock import Clock
from mousetrap.embedded_broker.dead_letter import is_cycle, make_dead_letter
from mousetrap.embedded_broker.exchange import PREDECLARED, Binding, Exchange
from mousetrap.embedded_broker.limits import Limits
from mousetrap.embedded_broker.message import Message, QueuedMessage
from mousetrap.embedded_broker.queue import Queue


class VirtualHost:
    """The exchanges and queues that clients of one virtual host share."""

    def __init__(
        self,
        name: str,
        clock: Clock,
        limits: Limits,
        count_memory: Callable[[int], None],
        random_token: Callable[[], str],
    ) -> None:
        self.name = name
        self.clock = clock
        self.limits = limits
        self.count_memory = count_memory  # called with each change of the bytes in use
        self.random_token = random_token  # for the names that the broker makes
        self.queues: dict[str, Queue] = {}
        # who receives the answers to the requests of a channel, by the name that stands for it
        self.reply_consumers: dict[str, Callable[[Message], None]] = {}
        self.exchanges = {name: Exchange(name, kind) for name, kind in PREDECLARED.items()}
        # message, reason, the queue that keeps it until it is accepted (None: it keeps none)
        self._dead_letters: deque[tuple[Message, str, Queue | None]] = deque()
        self._is_deferring = False

    def queue(self, name: str) -> Queue:
        """Return a queue.

        Raises:
            AmqpError: 404, it does not exist.
        """
        try:
            return self.queues[name]
        except KeyError:
            raise no_queue(name, self.name) from None

    def exchange(self, name: str) -> Exchange:
        """Return an exchange.

        Raises:
            AmqpError: 404, it does not exist.
        """
        try:
            return self.exchanges[name]
        except KeyError:
            raise no_exchange(name, self.name) from None

    def new_queue_name(self) -> str:
        """Return a name for a queue that is declared without one."""
        return f"amq.gen-{self.random_token()}"

    def route(self, message: Message) -> list[Queue]:
        """Return the queues that *message* is routed to, each once.

        The headers ``CC`` and ``BCC`` hold further routing keys. An exchange without a matching
        binding passes the message to its alternate exchange.
        """
        keys = message.routing_keys
        if message.exchange == "":
            return [self.queues[key] for key in keys if key in self.queues]
        found: dict[str, Queue] = {}
        seen = {message.exchange}
        waiting = [message.exchange]
        while waiting:
            exchange = self.exchanges.get(waiting.pop())
            if exchange is None:
                continue
            if exchange.name == "":
                further = [Binding("", "queue", key, key) for key in keys if key in self.queues]
            else:
                further = [each for key in keys for each in exchange.matches(message, key)]
            alternate = exchange.arguments.get("alternate-exchange")
            if not further and isinstance(alternate, str):
                further = [Binding(exchange.name, "exchange", alternate, "")]
            for each in further:
                if each.kind == "queue":
                    found[each.destination] = self.queues[each.destination]
                elif each.destination not in seen:
                    seen.add(each.destination)
                    waiting.append(each.destination)
        return list(found.values())

    def dead_letter(self, queue: Queue, queued: QueuedMessage, reason: str) -> None:
        """Publish a message that left *queue* to its dead-letter exchange, if it has one."""
        exchange = queue.arguments.dead_letter_exchange
        keeps = queue.arguments.keeps_dead_letters
        if exchange is None or (exchange not in self.exchanges and not keeps):
            return
        message = make_dead_letter(queued, reason, queue.name, queue.arguments, self.clock.wall())
        with self.deferring_dead_letters():
            self._dead_letters.append((message, reason, queue if keeps else None))

    @contextmanager
    def deferring_dead_letters(self) -> Iterator[None]:
        """Publish dead letters when the block ends, in the order in which they left their queues.

        In RabbitMQ each queue is a process: it finishes what it does before another queue receives
        its dead letters.
        """
        if self._is_deferring:
            yield
            return
        self._is_deferring = True
        try:
            yield
        finally:
            try:
                self._publish_dead_letters()
            finally:
                self._is_deferring = False

    def _publish_dead_letters(self) -> None:
        while self._dead_letters:
            message, reason, keeper = self._dead_letters.popleft()
            targets = self.route(message)
            refused = [
                queue
                for queue in targets
                if (reason == "rejected" or not is_cycle(message, queue.name))
                and not queue.publish(message)
            ]
            if keeper is not None and (refused or not targets):
                self._publish_later(message, reason, keeper)

    def _publish_later(self, message: Message, reason: str, keeper: Queue) -> None:
        """Keep a dead letter that no queue, or not every one, has accepted, and publish it again.

        As in RabbitMQ, *keeper* does not count it as ready. It is gone if *keeper* is deleted. It
        is published to every target again: an exchange with several can get it twice.
        """
        self.count_memory(message.size)

        def again() -> None:
            self.count_memory(-message.size)
            if not keeper.is_deleted:
                with self.deferring_dead_letters():
                    self._dead_letters.append((message, reason, keeper))

        self.clock.at(self.clock.now() + self.limits.return_time, again)

    def bind(self, binding: Binding) -> None:
        """Add a binding; a binding that exists already is not added twice."""
        self.exchange(binding.source).bindings[binding] = None

    def unbind(self, binding: Binding) -> None:
        """Remove a binding if it exists; an auto-delete exchange is deleted with its last one."""
        exchange = self.exchanges.get(binding.source)
        if exchange is None or binding not in exchange.bindings:
            return
        del exchange.bindings[binding]
        if exchange.auto_delete and not exchange.bindings:
            self.delete_exchange(exchange)

    def bindings(self) -> list[Binding]:
        """Return all bindings, except those of the default exchange."""
        return [each for exchange in self.exchanges.values() for each in exchange.bindings]

    def delete_exchange(self, exchange: Exchange) -> None:
        """Delete an exchange with the bindings from it and to it."""
        self.exchanges.pop(exchange.name, None)
        self._unbind_all("exchange", exchange.name)

    def delete_queue(self, queue: Queue) -> int:
        """Delete a queue with its bindings; return how many messages were ready in it."""
        if self.queues.get(queue.name) is not queue:
            return 0
        count = queue.ready
        if self.queues.pop(queue.name, None) is None:
            return 0  # dropping the expired messages deleted it already
        self._unbind_all("queue", queue.name)
        queue.close()
        return count

    def _unbind_all(self, kind: str, destination: str) -> None:
        for each in self.bindings():
            if (each.kind, each.destination) == (kind, destination):
                self.unbind(each)

    def overview(self) -> dict[str, Any]:
        """Return queues with their depths and consumers, exchanges and bindings, as plain data."""
        return {
            "queues": [
                {
                    "name": queue.name,
                    "type": queue.arguments.type,
                    "ready": queue.ready,
                    "unacked": queue.unacked,
                    "consumers": [each.tag for each in queue.consumers],
                    "arguments": queue.given,
                }
                for queue in list(self.queues.values())
            ],
            "exchanges": [
                {"name": each.name, "type": each.type} for each in self.exchanges.values()
            ],
            "bindings": [
                {
                    "source": each.source,
                    "kind": each.kind,
                    "destination": each.destination,
                    "routing_key": each.routing_key,
                    "arguments": dict(each.arguments),
                }
                for each in self.bindings()
            ],
        }
