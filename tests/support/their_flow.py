"""A flow on queues that an administrator has made: some with arguments, some unknown to us."""

from __future__ import annotations

from collections.abc import Iterator

from mousetrap import Exchange, Message, Queue, Send, stage

incoming = Exchange("orders", "topic")
THEIRS = Queue("company.orders", (0.1,), declare=False)
URGENT = Queue("urgent", (0.1,), arguments={"x-max-priority": 5})
ONE_BY_ONE = Queue(
    "ledger", (0.1,), [incoming["order.*"]], arguments={"x-single-active-consumer": True}
)


@stage(reads=THEIRS, writes="urgent", routes=[incoming])
def accept(number: int) -> Iterator[Send]:
    """Send each order to the next stage, and every tenth to the exchange as well."""
    yield Send(number, priority=number % 3)
    if number % 10 == 0:
        yield Send(-number, to=incoming, key="order.tenth")


@stage(reads=URGENT, writes="ledger")
def price(number: int) -> int:
    """Dead-letter every seventh."""
    if number % 7 == 0:
        raise ValueError("no price")
    return number


@stage(reads=ONE_BY_ONE, writes=Queue("company.results", declare=False))
def book(message: Message) -> int:
    """Fail at the first attempt with every fifth."""
    number = int(message.data)
    if number % 5 == 0 and message.attempt == 1:
        raise ConnectionError("try again")
    return number
