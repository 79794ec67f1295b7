"""Sends one value or many from a notebook cell, and sums up what happened to the messages.

Each call opens a publisher and closes it. A program that sends often keeps a
`mousetrap.amqp.publisher.Publisher` open, which is faster. Prototyped in
``notebooks/08_watching.ipynb``.
"""

from __future__ import annotations

import html
import logging
import math
from collections import Counter
from collections.abc import Iterator, Sized
from contextlib import suppress
from typing import Any

from mousetrap.amqp.publisher import Publisher
from mousetrap.amqp.receipt import Receipt
from mousetrap.display import design_tokens as tokens
from mousetrap.display import next_calls
from mousetrap.display.formats import counted, duration
from mousetrap.display.progress import UPDATE_INTERVAL, ProgressDisplay
from mousetrap.display.safe_text import NO_FORMULAS, safe
from mousetrap.errors import MousetrapError, PublishError
from mousetrap.flows.delayed import remember, waiting_queue
from mousetrap.flows.stage import Stage
from mousetrap.model.delays import SendOptions
from mousetrap.model.message import Message
from mousetrap.model.one_or_many import is_many
from mousetrap.model.targets import Address, Target, address_of, check_can_wait
from mousetrap.model.topology import work_queue_of
from mousetrap.runtime import clock
from mousetrap.runtime.cell_end import at_cell_end
from mousetrap.settings import Settings
from mousetrap.worker.handling import Handling, current_handling

log = logging.getLogger("mousetrap.flows.send")

RECEIPT_STATES = ("confirmed", "returned", "refused", "unknown", "waiting")


class SendResult:
    """The receipts of one `send`, summed up as ``1,000 confirmed in 0.08 s``.

    `receipts` has one receipt for each message, in the order of sending; `seconds` is how long
    `send` took. If `is_output`, the messages are sent when the handler returns: the receipts wait.
    """

    def __init__(
        self, queue: str, receipts: list[Receipt], seconds: float, *, is_output: bool = False
    ) -> None:
        self.queue = queue
        self.receipts = receipts
        self.seconds = seconds
        self.is_output = is_output
        self._is_shown = False

    @property
    def counts(self) -> dict[str, int]:
        """The number of messages in each state of a receipt; states without messages are absent."""
        found = Counter[str](receipt.state for receipt in self.receipts)
        return {state: found[state] for state in RECEIPT_STATES if found[state]}

    @property
    def error(self) -> PublishError | None:
        """The error of the first message that is not confirmed; None if all are confirmed."""
        return next((error for each in self.receipts if (error := each.error)), None)

    @property
    def ids(self) -> list[str]:
        """The id of each message."""
        return [receipt.message.id for receipt in self.receipts]

    def __len__(self) -> int:
        return len(self.receipts)

    def __repr__(self) -> str:
        self._is_shown = True
        return self._text("_")  # what a cell showed last

    def _text(self, usual: str = "sent") -> str:
        lines = [f"{self._summary()} → {safe(self.queue)}"]
        lines += [safe(self.error)] * bool(self.error)
        return "\n".join(filter(None, [*lines, next_calls.text_of(self._next(usual))]))

    def _repr_html_(self) -> str:
        self._is_shown = True
        mark, color = (tokens.DEAD_SIGN, tokens.DEAD_MARK) if self.error else ("✓", tokens.OK_MARK)
        why = f"<br>{html.escape(safe(self.error))}" if self.error else ""
        calls = next_calls.html_of(self._next("_"))
        to = html.escape(safe(self.queue))
        return (
            f"<div class='{NO_FORMULAS}'><span style='color:{color}'>{mark}</span> "
            f"<b>{html.escape(self._summary())}</b> → {to}{why}"
            f"{f'<br>{calls}' * bool(calls)}</div>"
        )

    def _next(self, usual: str) -> list[str]:
        """Return what a person would call next if messages are not confirmed.

        *usual* is what this result is called if the notebook has no name for it.
        """
        failed = [each for each in self.receipts if each.error]
        if not failed or failed[0].exchange:
            return []
        receipts = f"{next_calls.name_of(self, usual)}.receipts"
        again = f"[each.message for each in {receipts} if each.error]"
        calls = [next_calls.call_of("send", f"{self.queue!r}, {again}")]
        if failed[0].state == "returned" and not work_queue_of(self.queue):
            calls.insert(0, next_calls.call_of("job_queue.declare", repr(self.queue)))
        return calls

    def _log(self) -> None:
        """Log the error, unless a cell shows this result."""
        if not self._is_shown:
            log.warning("%s", self._text())

    def _summary(self) -> str:
        if self.is_output:
            return f"{len(self):,} will be sent when the handler returns"
        took, counts = duration(self.seconds), self.counts
        shown = ", ".join(f"{n:,} {state}" for state, n in counts.items() if state != "confirmed")
        if self.error:
            failed = len(self) - counts.get("confirmed", 0)
            of = f"{failed:,} of {counted(len(self), 'message')}"
            return f"{of} not confirmed: {shown} in {took}"
        if number := counts.get("confirmed"):
            shown = ", ".join(filter(None, [f"{number:,} confirmed", shown]))
        return f"{shown or 'nothing to send'} in {took}"


def send(
    queue: Target | Stage[..., Any],
    data: Any = None,
    count: int = 1,
    settings: Settings | None = None,
    *,
    delay: float | None = None,
    priority: int | None = None,
    expires: float | None = None,
) -> SendResult:
    """Send *data* to *queue*, *count* times, and return when the broker has answered for all.

    *queue* may also be an exchange with a routing key: ``send(orders["order.paid"], data)``. The
    broker returns the message if no queue is bound for it.

    A list, a tuple, a ``range``, ``d.values()`` or an iterator is one message for each of its
    values; ``[[1, 2]]`` sends one list. Anything else is one message: a number, text, a dict, a
    dataclass, a model, a named tuple; without *data* the body is empty. What JSON cannot represent
    is an error that says what to send: for a data frame, ``frame.to_dict("records")``. A `Message`
    is sent unchanged.

    *delay*: a worker gets the messages so many seconds later, up to seven days, within 5 % or
    100 ms. They wait in ``remind.delay.60s``; the target must be a queue that exists. The first
    call with a delay takes two seconds: then they survive a kill of the broker. *priority*: 0 to
    255, for a queue that has priorities. *expires*: a worker that begins with a message later than
    so many seconds after this call dead-letters it, with the reason ``Expired``.

    If the broker does not confirm a message, no exception is raised: the returned result says how
    many were not confirmed and why, and a warning is logged, in a cell only if it does not show it.

    Inside a handler, also in threads and tasks that it starts, the messages are outputs of the
    message that is handled, like the values that the handler returns: they go to the queues of the
    handler's worker, in its namespace, when the handler has returned; none is sent if it raises.
    The source is acked after the broker has confirmed them. Their ids are the same each time the
    source is handled (a `Message` gives its body and headers, not its id), and their receipts stay
    ``waiting``. With *settings* that name another broker or namespace, the messages are sent at
    once, whatever becomes of the handling, and no run counts them.

    Raises:
        TypeError, ValueError: a value cannot be JSON; the values before it were sent (inside a
            handler: none of this call is sent).
        Exception: whatever the iterable *data* raises; the values before were sent. Of this
            exception as of all others, ``receipts`` has the receipts of what was sent.
        MousetrapError: this code belongs to a handling that has ended, or to a process that a
            handler forked; nothing was sent.
        ValueError: a `Message` cannot be sent more than once; *delay*, *priority* or *expires* is
            out of range; an exchange cannot be sent to later; nothing was sent.
        QueueMissing: there is no such queue to send to later; nothing was sent.
        BrokerUnreachable, AccessRefused: the error names the setting to check.
        OutcomeUnknown: the broker stopped answering; a note on the error says how many messages it
            had confirmed.
    """
    try:
        options = SendOptions.checked(priority, delay, expires)
        return _send(queue, data, count, settings, options)
    except BaseException as error:
        vars(error).setdefault("receipts", [])  # nothing was sent
        raise


def _send(
    queue: Target | Stage[..., Any],
    data: Any,
    count: int,
    settings: Settings | None,
    options: SendOptions,
) -> SendResult:
    address = queue.queue.name if isinstance(queue, Stage) else address_of(queue)
    check_can_wait(address, options)
    has_many = is_many(data)
    if count > 1:
        if isinstance(data, Message):
            raise ValueError("a Message has one id and is sent once: give its data, or count=1")
        data = list(data) if has_many else data
    handling = current_handling.get(None)
    if handling is not None and handling.includes(settings):
        values = list(_messages(data, count, has_many, options))
        return _add_to(handling, address, values, options)
    total = count * (len(data) if isinstance(data, Sized) else 0) if has_many else count
    publisher = Publisher(settings or Settings.from_environment(), "send").open()
    messages = _messages(data, count, has_many, options)
    return _send_now(publisher, address, messages, total, options)


def _send_now(
    publisher: Publisher,
    address: Address,
    values: Iterator[Message],
    total: int,
    options: SendOptions,
) -> SendResult:
    """Send *values*, *total* of them if it is not 0, and wait for the answers; show progress."""
    name = str(address)
    result = SendResult(name, [], 0.0)
    progress, started = ProgressDisplay(), clock.monotonic()

    def show(*, is_last: bool = False) -> None:
        of = f" of {total:,}" if total else ""
        line = f"{name}: {len(result.receipts) - publisher.in_flight:,}{of} answered for"
        progress.update(safe(line), is_last=is_last)

    def add(receipts: list[Receipt]) -> None:
        result.receipts += receipts
        show()

    def wait_for_answers() -> None:
        while publisher.in_flight:  # each receipt gets an outcome at its deadline at the latest
            with suppress(TimeoutError):
                publisher.flush(UPDATE_INTERVAL)
            show()
        result.seconds = clock.monotonic() - started

    try:
        if isinstance(address, str) and options.delay:
            address = waiting_queue(publisher, address, options.delay)
        try:
            publisher.publish_many(values, address, priority=options.priority, on_submitted=add)
        except Exception:  # of a value: those before it were sent, and their outcome can be known
            wait_for_answers()
            raise
        wait_for_answers()
    except BaseException as error:
        publisher.close(0.5)  # seconds: an interrupt must not wait for all confirms
        result.seconds = clock.monotonic() - started
        error.add_note(f"so far: {result!r}")
        raise
    finally:
        show(is_last=True)
    publisher.close()
    if options.delay and result.error is None:
        remember(publisher.settings, str(address))
    if result.error is not None and not at_cell_end(result._log):
        result._log()
    return result


def _add_to(
    handling: Handling, address: Address, messages: list[Message], options: SendOptions
) -> SendResult:
    """Add *messages* to the outputs of a handling."""
    name = str(address)
    receipts: list[Receipt] = [
        _OutputReceipt(each, name, int(clock.time()), None, math.inf, None)
        for each in handling.add(messages, address, options)
    ]
    return SendResult(name, receipts, 0.0, is_output=True)


class _OutputReceipt(Receipt):
    """The receipt of a message that is sent when the handler has returned."""

    __slots__ = ()

    def wait(self, timeout: float = 30.0) -> Receipt:  # noqa: ARG002 -- as the base has it
        """Raise at once: the handler would wait for its own end."""
        raise MousetrapError(
            f"message {self.message.short_id} is sent to {self.queue!r} when the handler returns: "
            f"do not wait for it inside the handler; the source is acked after it is confirmed"
        )


def _messages(data: Any, count: int, has_many: bool, options: SendOptions) -> Iterator[Message]:
    headers = options.headers()
    for _ in range(count):
        for value in data if has_many else (data,):
            if not isinstance(value, Message):
                yield Message(value, headers=headers)
            elif headers:
                yield value.copy(value.attempt, {**value.headers, **headers})
            else:
                yield value
