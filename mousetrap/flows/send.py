"""Sending from a cell: one value or many, and what became of them summed up.

In a program a `mousetrap.amqp.publisher.Publisher` stays open and is faster; this one is opened for
each call. Prototyped in ``notebooks/08_watching.ipynb``.
"""

from __future__ import annotations

import html
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import suppress
from itertools import islice
from typing import Any

from mousetrap.amqp.publisher import Publisher
from mousetrap.amqp.receipt import Receipt
from mousetrap.display.progress import UPDATE_INTERVAL, ProgressLine
from mousetrap.display.safe_text import NO_FORMULAS, safe
from mousetrap.errors import PublishError
from mousetrap.flows.stage import Stage, queue_of
from mousetrap.model.message import Message
from mousetrap.model.topology import Queue
from mousetrap.runtime import clock
from mousetrap.settings import Settings

log = logging.getLogger("mousetrap.send")

BATCH = 256  # messages between two looks at the clock
OUTCOMES = ("confirmed", "returned", "refused", "unknown", "waiting")


class SendResult:
    """What became of the messages of one `send`: ``1,000 confirmed in 0.08 s``.

    `receipts` has one for each message, in their order; `counts` sums them up; `error` is what the
    first one that is not confirmed would raise, None if all are.
    """

    def __init__(self, queue: str, receipts: list[Receipt], seconds: float) -> None:
        self.queue = queue
        self.receipts = receipts
        self.seconds = seconds

    @property
    def counts(self) -> dict[str, int]:
        """How many messages had each outcome; those that none had are left out."""
        found = Counter[str](receipt.state for receipt in self.receipts)
        return {outcome: found[outcome] for outcome in OUTCOMES if found[outcome]}

    @property
    def error(self) -> PublishError | None:
        """Why the first message that is not confirmed is not; None if all are."""
        return next((error for each in self.receipts if (error := each.error)), None)

    @property
    def ids(self) -> list[str]:
        """The id of each message."""
        return [receipt.message.id for receipt in self.receipts]

    def __len__(self) -> int:
        return len(self.receipts)

    def __repr__(self) -> str:
        why = f"\n{safe(self.error)}" if self.error else ""
        return f"{self._summary()} → {safe(self.queue)}{why}"

    def _repr_html_(self) -> str:
        mark, color = ("✗", "#c53030") if self.error else ("✓", "#2f855a")
        why = f"<br>{html.escape(safe(self.error))}" if self.error else ""
        to = html.escape(safe(self.queue))
        return (
            f"<div class='{NO_FORMULAS}'><span style='color:{color}'>{mark}</span> "
            f"<b>{html.escape(self._summary())}</b> → {to}{why}</div>"
        )

    def _summary(self) -> str:
        counts = ", ".join(f"{n:,} {outcome}" for outcome, n in self.counts.items())
        return f"{counts or 'nothing to send'} in {self.seconds:.2f} s"


def send(
    queue: str | Queue | Stage[..., Any],
    data: Any = None,
    count: int = 1,
    settings: Settings | None = None,
) -> SendResult:
    """Send *data* to *queue*, *count* times over, and return when the broker has answered for all.

    One value is one message: a number, text, a dict, a dataclass, a msgspec struct, a pydantic
    model; no data is the empty body. What can be gone through is a message for each of its values:
    a list, a ``range``, a generator; ``[[1, 2]]`` sends one list. A `Message` travels as it is.

    A message that did not arrive is no exception here: the value says how many and why, and so
    does a warning in the log.

    Raises:
        TypeError, ValueError: a value cannot be JSON; what stood before it may have been sent.
        BrokerUnreachable, AccessRefused: with the variable to check.
        OutcomeUnknown: the broker stopped answering half-way; a note says how far it came.
    """
    settings = settings or Settings.from_environment()
    name = queue_of(queue).name
    is_many = _is_many(data)
    if count > 1:
        if isinstance(data, Message):
            raise ValueError("a Message has one id and is sent once: give its data, or count=1")
        data = list(data) if is_many else data
    total = count * (len(data) if isinstance(data, Sized) else 0) if is_many else count
    receipts: list[Receipt] = []
    progress, started, seconds = ProgressLine(), clock.monotonic(), 0.0
    publisher = Publisher(settings, "send").open()

    def sent() -> SendResult:
        return SendResult(name, receipts, seconds or clock.monotonic() - started)

    def show(*, is_last: bool = False) -> None:
        of = f" of {total:,}" if total else ""
        line = f"{name}: {len(receipts) - publisher.in_flight:,}{of} answered for"
        progress.update(safe(line), is_last=is_last)

    try:
        values = _messages(data, count, is_many)
        while batch := list(islice(values, BATCH)):
            receipts += publisher.publish_many(batch, name)
            show()
        while publisher.in_flight:  # each is settled by its deadline at the latest
            with suppress(TimeoutError):
                publisher.flush(UPDATE_INTERVAL)
            show()
        seconds = clock.monotonic() - started
    except BaseException as error:
        publisher.close(0.5)  # an interrupt is not to wait for what is on its way
        error.add_note(f"so far: {sent()!r}")
        raise
    finally:
        show(is_last=True)
    publisher.close()
    result = sent()
    if result.error is not None:
        log.warning("%s", result)
    return result


def _is_many(data: Any) -> bool:
    """Say whether *data* is several values: it can be gone through, and is no value itself."""
    # pydantic's models, dataclasses and named tuples may be gone through as well: by their fields
    marks = ("model_dump", "__dataclass_fields__", "_fields")
    is_value = isinstance(data, (str, bytes, Mapping, Message)) or any(
        hasattr(data, mark) for mark in marks
    )
    return isinstance(data, Iterable) and not is_value


def _messages(data: Any, count: int, is_many: bool) -> Iterator[Message]:
    for _ in range(count):
        for value in data if is_many else (data,):
            yield value if isinstance(value, Message) else Message(value)
