"""The publishes that were written to a channel and have no answer yet.

Prototyped in ``notebooks/02_publisher.ipynb``.
"""

from __future__ import annotations

from itertools import takewhile

from mousetrap.amqp.receipt import Receipt


class UnconfirmedPublishes:
    """The receipts by delivery tag; the broker counts the publishes of each channel from 1.

    Each receipt is taken once, by its first answer.

    Threads: the I/O thread.
    """

    def __init__(self) -> None:
        self._tag = 0
        self._receipts: dict[int, Receipt] = {}  # in the order of tags

    def add(self, receipt: Receipt) -> None:
        """Add the receipt of the message that was just written."""
        self._tag += 1
        self._receipts[self._tag] = receipt

    def take(self, tag: int, *, multiple: bool) -> list[Receipt]:
        """Take the receipt that an ack or nack of *tag* answers; *multiple*: all up to it."""
        tags = list(takewhile(lambda each: each <= tag, self._receipts)) if multiple else [tag]
        return [receipt for each in tags if (receipt := self._receipts.pop(each, None))]

    def take_returned(self, id: str | None, key: str) -> list[Receipt]:
        """Take the receipt that a return of message *id* with routing key *key* answers.

        The broker returns messages in the order in which they were published, each before its ack.
        So the first match is the right one, and it is near the front.
        """
        for tag, receipt in self._receipts.items():
            if receipt.message.id == id and receipt.queue == key:
                return [self._receipts.pop(tag)]
        return []

    def take_late(self, now: float) -> list[Receipt]:
        """Take the receipts whose deadline was before *now*, on the monotonic clock."""
        late = [tag for tag, receipt in self._receipts.items() if receipt.deadline < now]
        return [self._receipts.pop(tag) for tag in late]

    def take_all(self) -> list[Receipt]:
        """Take all receipts: their channel is lost, and the next channel counts from 1."""
        receipts, self._receipts, self._tag = list(self._receipts.values()), {}, 0
        return receipts
