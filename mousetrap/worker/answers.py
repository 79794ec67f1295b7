"""Answers requests: messages that name a queue in their property ``reply_to``.

What the handler returns is the answer: its value as plain JSON, a list if it made several values,
and null for none. A `Send` to another target is no part of it. A request that is dead-lettered is
answered with the reason. An answer is published once, when the broker has confirmed all outputs, or
the dead letter; the ack never waits for it. One that is refused is dropped and counted.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

from mousetrap.amqp.delivery import Delivery
from mousetrap.amqp.properties import AMQPProperties, answer_properties
from mousetrap.amqp.publisher import Publisher
from mousetrap.amqp.receipt import AnswerReceipt, Receipt
from mousetrap.display.safe_text import safe
from mousetrap.errors import MousetrapError
from mousetrap.model.encoding import encode
from mousetrap.model.headers import REASON
from mousetrap.model.message import Message
from mousetrap.model.targets import Send
from mousetrap.runtime import clock

log = logging.getLogger("mousetrap.worker.worker")


class _Answer(NamedTuple):
    body: bytes
    reason: str = ""


class Answers:
    """The answers of one worker, published by *publisher*.

    Threads: any.
    """

    def __init__(self, publisher: Publisher) -> None:
        self.kept: dict[Delivery, _Answer] = {}  # until the outputs are confirmed
        self.dropped = 0  # not confirmed by the broker
        self._publisher = publisher

    def keep(
        self, delivery: Delivery, outputs: Sequence[Message], values: Sequence[object] | None
    ) -> None:
        """Keep the answer to *delivery*: its *outputs*, or the *values* that were returned."""
        if values is None:
            found = [each.body for each in outputs]
        else:
            found = [encode(each.value if isinstance(each, Send) else each) for each in values
                     if not isinstance(each, Send) or each.to is None]  # fmt: skip
        bodies = [each or b"null" for each in found]  # the body of None is empty
        is_one = len(bodies) == 1
        body = bodies[0] if is_one else b"[%b]" % b",".join(bodies) if bodies else b"null"
        self.kept[delivery] = _Answer(body)

    def keep_failure(self, delivery: Delivery, reason: str) -> None:
        """Keep the answer that the request *delivery* was dead-lettered for *reason*."""
        self.kept[delivery] = _Answer(encode({"error": reason}), reason)

    def send(self, delivery: Delivery) -> None:
        """Publish the answer to *delivery*, if there is one: once, and without waiting."""
        if (answer := self.kept.pop(delivery, None)) is None:
            return
        properties = delivery.properties
        try:
            receipt = self._receipt(answer, properties)
            self._publisher.window.submit((receipt,))
        except (MousetrapError, ValueError) as error:  # closed, or the body is too large
            self._drop(f"{type(error).__name__}: {error}")

    def _receipt(self, answer: _Answer, asked: AMQPProperties) -> Receipt:
        headers = {REASON: answer.reason} if answer.reason else None
        message = Message(body=answer.body, headers=headers)
        deadline = clock.monotonic() + self._publisher.settings.confirm_timeout
        return AnswerReceipt(
            message, str(asked.reply_to), int(clock.time()),
            answer_properties(asked.correlation_id), deadline, self._on_outcome,
        )  # fmt: skip

    def _on_outcome(self, receipt: Receipt) -> None:  # on the I/O thread
        if not receipt.confirmed:
            self._drop(receipt.reason)

    def _drop(self, reason: str) -> None:
        self.dropped += 1
        log.info("an answer was dropped: %s", safe(reason))
