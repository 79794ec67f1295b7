"""What was written to a channel and has no answer yet.

Prototyped in ``notebooks/02_publisher.ipynb``.
"""

from __future__ import annotations

from itertools import takewhile

from mousetrap.amqp.receipt import Receipt


class UnconfirmedPublishes:
    """Receipts by the delivery tags that the broker gives them: 1, 2, ... on each channel.

    Each is taken once, by whatever answers first. Threads: one.
    """

    def __init__(self) -> None:
        self._tag = 0
        self._receipts: dict[int, Receipt] = {}  # in the order of tags

    def add(self, receipt: Receipt) -> None:
        """Note what was written just now."""
        self._tag += 1
        self._receipts[self._tag] = receipt

    def take(self, tag: int, *, multiple: bool) -> list[Receipt]:
        """Take what an ack or nack of *tag* answers; *multiple*: all up to it."""
        tags = list(takewhile(lambda each: each <= tag, self._receipts)) if multiple else [tag]
        return [receipt for each in tags if (receipt := self._receipts.pop(each, None))]

    def take_returned(self, id: str | None, key: str) -> list[Receipt]:
        """Take the one that a return of message *id* with routing key *key* answers.

        The broker answers in order, and a return comes just before its ack, so the first that
        matches is the one, and it stands near the front.
        """
        for tag, receipt in self._receipts.items():
            if receipt.message.id == id and receipt.queue == key:
                return [self._receipts.pop(tag)]
        return []

    def take_late(self, now: float) -> list[Receipt]:
        """Take those whose deadline was before *now*, on the monotonic clock."""
        late = [tag for tag, receipt in self._receipts.items() if receipt.deadline < now]
        return [self._receipts.pop(tag) for tag in late]

    def take_all(self) -> list[Receipt]:
        """Take all: their channel is gone, and the next one counts from 1."""
        receipts, self._receipts, self._tag = list(self._receipts.values()), {}, 0
        return receipts
