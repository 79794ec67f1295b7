"""A virtual host: its exchanges and queues, and how a message finds its way between them."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mousetrap.embedded_broker import dead_letter
from mousetrap.embedded_broker.clock import Clock
from mousetrap.embedded_broker.exchange import PREDECLARED, Binding, Exchange
from mousetrap.embedded_broker.limits import Limits
from mousetrap.embedded_broker.message import Message
from mousetrap.embedded_broker.queue import Entry, Queue
from mousetrap.embedded_broker.refusal import no_exchange, no_queue


class VirtualHost:
    """What clients of one virtual host share. Threads: the server's own."""

    def __init__(
        self, name: str, clock: Clock, limits: Limits, weigh: Callable[[int], None]
    ) -> None:
        self.name = name
        self.clock = clock
        self.limits = limits
        self.weigh = weigh  # told the bytes that messages come to take, or no longer take
        self.queues: dict[str, Queue] = {}
        self.exchanges = {name: Exchange(name, kind) for name, kind in PREDECLARED.items()}
        self._letters: deque[tuple[Message, str]] = deque()
        self._is_busy = False

    def queue(self, name: str) -> Queue:
        """Return a queue; 404 without one."""
        try:
            return self.queues[name]
        except KeyError:
            raise no_queue(name, self.name) from None

    def exchange(self, name: str) -> Exchange:
        """Return an exchange; 404 without one."""
        try:
            return self.exchanges[name]
        except KeyError:
            raise no_exchange(name, self.name) from None

    def new_queue_name(self) -> str:
        """Make a name for who gives none."""
        return f"amq.gen-{secrets.token_urlsafe(16)}"

    def route(self, message: Message) -> list[Queue]:
        """Return the queues that *message* reaches, each once.

        ``CC`` and ``BCC`` are further routing keys. An exchange that finds no binding passes the
        message to its alternate exchange.
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

    def dead_letter(self, queue: Queue, entry: Entry, reason: str) -> None:
        """Publish a message that left *queue* to its dead-letter exchange, if it has one."""
        exchange = queue.arguments.dead_letter_exchange
        if exchange is None or exchange not in self.exchanges:
            return
        letter = dead_letter.letter(queue, entry, reason, self.clock.wall())
        with self.posting_later():
            self._letters.append((letter, reason))

    @contextmanager
    def posting_later(self) -> Iterator[None]:
        """Publish dead letters when the block is over, in the order in which they died.

        What a queue does is over before another hears of it: in RabbitMQ they are processes.
        """
        if self._is_busy:
            yield
            return
        self._is_busy = True
        try:
            yield
        finally:
            try:
                self._post()
            finally:
                self._is_busy = False

    def _post(self) -> None:
        while self._letters:
            letter, reason = self._letters.popleft()
            for each in self.route(letter):
                if reason == "rejected" or not dead_letter.is_cycle(letter, each.name):
                    each.publish(letter)

    def bind(self, binding: Binding) -> None:
        """Add a binding; one that is there already stays one."""
        self.exchange(binding.source).bindings[binding] = None

    def unbind(self, binding: Binding) -> None:
        """Remove a binding if it is there; an auto-delete exchange goes with its last one."""
        exchange = self.exchanges.get(binding.source)
        if exchange is None or binding not in exchange.bindings:
            return
        del exchange.bindings[binding]
        if exchange.auto_delete and not exchange.bindings:
            self.delete_exchange(exchange)

    def bindings(self) -> list[Binding]:
        """All bindings but those that every queue has from the default exchange."""
        return [each for exchange in self.exchanges.values() for each in exchange.bindings]

    def delete_exchange(self, exchange: Exchange) -> None:
        """Delete an exchange with the bindings from and to it."""
        self.exchanges.pop(exchange.name, None)
        self._unbind_all("exchange", exchange.name)

    def delete_queue(self, queue: Queue) -> int:
        """Delete a queue with its bindings; return how many messages were ready in it."""
        if self.queues.get(queue.name) is not queue:
            return 0
        many = queue.ready
        if self.queues.pop(queue.name, None) is None:
            return 0  # dropping what had expired came back here
        self._unbind_all("queue", queue.name)
        queue.close()
        return many

    def _unbind_all(self, kind: str, destination: str) -> None:
        for each in self.bindings():
            if (each.kind, each.destination) == (kind, destination):
                self.unbind(each)

    def overview(self) -> dict[str, Any]:
        """Queues with depth and consumers, exchanges and bindings, as plain data."""
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
