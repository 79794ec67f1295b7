"""The outcome of one publish.

Prototyped in ``notebooks/02_publisher.ipynb``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from mousetrap.amqp.declared_queues import similar_names
from mousetrap.amqp.properties import AMQPProperties
from mousetrap.display.safe_text import safe
from mousetrap.errors import OutcomeUnknown, PublishError, PublishRefused, Unroutable
from mousetrap.model.message import Message
from mousetrap.model.topology import work_queue_of
from mousetrap.runtime.interrupt import Waiter

ReceiptState = Literal["waiting", "confirmed", "returned", "refused", "unknown"]


class Receipt:
    """The outcome of one publish: `state` starts as ``waiting`` and changes once.

    ``confirmed``: the broker has taken responsibility for the message. ``returned``: there is no
    such queue. ``refused``: the broker did not accept it. ``unknown``: there was no answer in time
    or the connection broke; the broker may have the message or not, so publish it again, with the
    same id.

    Threads: any, but `wait` not on the I/O thread, where it would keep the answer from arriving.
    """

    __slots__ = (
        "_callback",
        "_done",
        "base",
        "deadline",
        "exchange",
        "is_final",
        "message",
        "queue",
        "reason",
        "sent",
        "state",
    )  # fmt: skip

    def __init__(
        self,
        message: Message,
        queue: str,
        sent: int,
        base: AMQPProperties | None,
        deadline: float,
        callback: Callable[[Receipt], None] | None,
        exchange: str = "",
    ) -> None:
        self.message = message
        self.queue = queue  # its name on the wire; for an exchange, the routing key
        self.exchange = exchange  # "" is the default exchange: each queue is bound by its name
        self.sent = sent  # when it was first published, in seconds since 1970
        self.base = base  # properties that another client gave the message
        self.deadline = deadline  # on the monotonic clock
        self.state: ReceiptState = "waiting"
        self.reason = ""
        self.is_final = False  # the message can never be sent as it is
        self._callback = callback
        self._done: Waiter | None = None

    @property
    def is_mandatory(self) -> bool:
        """Whether the broker returns the message if no queue gets it."""
        return not self.exchange

    @property
    def target(self) -> str:
        """Where it is sent, on the wire: a queue, or ``exchange[key]``."""
        return f"{self.exchange}[{self.queue}]" if self.exchange else self.queue

    @property
    def confirmed(self) -> bool:
        """Whether the broker has taken responsibility for the message."""
        return self.state == "confirmed"

    @property
    def error(self) -> PublishError | None:
        """The error for this outcome; None while waiting and when confirmed."""
        match self.state:
            case "returned":
                if self.exchange:
                    return Unroutable(
                        f"message {self.message.short_id} was returned: no queue is bound to "
                        f"exchange {self.exchange!r} with a key that matches {self.queue!r}; bind "
                        f"one (Queue(bindings=[...])) or check the key and the namespace"
                    )
                if work_queue_of(self.queue):
                    return Unroutable(
                        f"message {self.message.short_id} was returned: there is no queue "
                        f"{self.queue!r}; its worker declares it with the arguments that it needs, "
                        f"as soon as the broker allows that"
                    )
                known = [repr(safe(name)) for name in similar_names(self.queue)]
                hint = f" Did you mean {' or '.join(known)}?" if known else ""
                return Unroutable(
                    f"message {self.message.short_id} was returned: there is no queue "
                    f"{self.queue!r}; declare it (mousetrap.job_queue.declare) or check its name "
                    f"and namespace.{hint}"
                )
            case "refused":
                return PublishRefused(
                    f"the broker refused message {self.message.short_id} for {self._where} "
                    f"({safe(self.reason) or 'queue full?'})"
                    + ("" if self.is_final else "; publish it again later, with the same id")
                )
            case "unknown":
                return OutcomeUnknown(
                    f"whether message {self.message.short_id} reached {self._where} is "
                    f"unknown ({safe(self.reason)}); publish it again, with the same id"
                )
        return None

    def wait(self, timeout: float = 30.0) -> Receipt:
        """Wait for the outcome and return the receipt if the message is confirmed.

        Raises:
            Unroutable, PublishRefused, OutcomeUnknown: for the states returned, refused, unknown.
            TimeoutError: the receipt still waits after *timeout* seconds.
        """
        if self.state == "waiting":
            done = self._done = self._done or Waiter()
            if not done.wait_for(lambda: self.state != "waiting", timeout):
                raise TimeoutError(
                    f"no answer for message {self.message.short_id} in {timeout:g} s; wait longer: "
                    f"the receipt gets an answer at its deadline at the latest"
                )
        if error := self.error:
            raise error
        return self

    @property
    def _where(self) -> str:
        return f"exchange {self.target}" if self.exchange else f"queue {self.queue!r}"

    def __repr__(self) -> str:
        why = f" ({safe(self.reason, 100)})" if self.reason else ""
        return f"<Receipt {self.message.short_id} → {safe(self.target)}: {self.state}{why}>"


class AnswerReceipt(Receipt):
    """The receipt of an answer: it is dropped if the one that asked is gone."""

    __slots__ = ()

    @property
    def is_mandatory(self) -> bool:
        """Never: RabbitMQ before 4.3 returns an answer that it also delivers (measured)."""
        return False


class ExchangeReceipt(Receipt):
    """The receipt of a message to an exchange from which at least one queue must get it."""

    __slots__ = ()

    @property
    def is_mandatory(self) -> bool:
        """Always: a message that nobody gets would be lost without a word."""
        return True
