"""Quorum queues that were declared a moment ago, whose confirms do not count yet.

RabbitMQ writes the name of a new quorum queue to its disk up to a second after the declaration
(measured on 3.10, 4.0 and 4.3), and confirms messages before that. If it is killed in between, it
begins the queue again without these messages; before 4.3 that queue also has no leader and answers
nothing. So the source of such a message is acked only when the queue has been there for a while,
and `mousetrap.job_queue.declare` returns only then.

A queue that was there for so long is old: RabbitMQ keeps it when it is killed, and only a client
can delete it. So a publisher asks for an old queue before it declares it, on the same channel,
without waiting for an answer. If the queue is gone, the broker closes the channel, and the queue is
new.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from mousetrap.amqp.receipt import Receipt
from mousetrap.model.topology import Declaration

FORGETFUL = "RabbitMQ"  # the product that confirms too early
NEW_QUEUE_TIME = 2.0  # seconds after the first confirm of a new queue; twice the longest measured


class NewQueues:
    """Keeps the receipts of new quorum queues until their confirms count.

    A queue is taken for new at its first declaration, and until it is old at the first one on each
    connection: the broker may have been killed and have forgotten it. Each new queue makes RabbitMQ
    postpone the writing, so the last one counts for all.

    Threads: the I/O thread.
    """

    def __init__(self) -> None:
        self.is_active = False  # the broker is a RabbitMQ
        self.old: set[str] = set()  # those that were there long enough, on any connection
        self._until: dict[str, float] = {}  # new queue -> when confirms count; inf: none has come
        self._declared: set[str] = set()
        self._held: list[Receipt] = []

    def connected(self, product: str) -> None:
        """Begin with no queue declared; *product* is what the broker calls itself.

        Only RabbitMQ confirms too early.
        """
        self.is_active = product.startswith(FORGETFUL)
        self._declared.clear()
        self._until.clear()

    def known(self, queue: str) -> None:
        """Remember that *queue* is no new one, until the connection is lost. Threads: any."""
        self._declared.add(queue)

    def declared(self, queue: str) -> None:
        """Remember that *queue* is declared now."""
        if self.is_active and queue not in self._declared and queue not in self.old:
            self._until[queue] = math.inf
        self._declared.add(queue)

    def deleted(self, queue: str) -> None:
        """Remember that *queue* does not exist."""
        self.old.discard(queue)
        self._declared.discard(queue)

    def declared_again(self, queue: str) -> None:
        """Remember that *queue* is declared now, and was perhaps deleted before.

        The time of one that is new already goes on: what is held must not wait for a next confirm.
        """
        if queue not in self._until:
            self.deleted(queue)
            self.declared(queue)

    def exist(self, queues: Iterable[str], now: float) -> None:
        """Remember that *queues* were declared at the beginning of a connection, and exist *now*.

        They may be older than this publisher knows; that the broker does not say.
        """
        for queue in queues:
            if self.is_active and queue not in self.old:
                self._until[queue] = now + NEW_QUEUE_TIME
            self._declared.add(queue)

    def counted(self, receipts: list[Receipt], now: float) -> list[Receipt]:
        """Return those of *receipts*, which the broker has just confirmed, that count at once."""
        if not self._until:
            return receipts
        for receipt in receipts:
            if not receipt.exchange and self._until.get(receipt.queue) == math.inf:
                for queue, until in self._until.items():
                    if queue == receipt.queue or until < math.inf:
                        self._until[queue] = now + NEW_QUEUE_TIME
        counted: list[Receipt] = []
        for receipt in receipts:
            is_held = not receipt.exchange and self._until.get(receipt.queue, now) > now
            (self._held if is_held else counted).append(receipt)
        return counted

    def take(self, now: float) -> list[Receipt]:
        """Take the held receipts whose confirms count by *now*."""
        if not self._until:
            return []
        self.old.update(queue for queue, until in self._until.items() if until <= now)
        self._until = {queue: until for queue, until in self._until.items() if until > now}
        taken = [each for each in self._held if each.queue not in self._until]
        self._held = [each for each in self._held if each.queue in self._until]
        return taken

    def take_held(self) -> list[Receipt]:
        """Take all held receipts: their channel is lost."""
        taken, self._held = self._held, []
        return taken

    def count_all(self) -> list[Receipt]:
        """Take all held receipts; from now on every confirm counts."""
        self.is_active, self._until = False, {}
        return self.take_held()


def is_quorum(declaration: Declaration) -> bool:
    """Return whether *declaration* is of a quorum queue."""
    return declaration.arguments.get("x-queue-type") == "quorum"


def is_waiting_queue(declaration: Declaration) -> bool:
    """Return whether messages only wait in the queue of *declaration*: for a retry, for a delay."""
    return "x-message-ttl" in declaration.arguments
