"""What an outcome says of the messages that came of an attempt: their ids, queues and bodies."""

from __future__ import annotations

from collections.abc import Sequence

from mousetrap.model.join_headers import NOTICE
from mousetrap.model.message import Message
from mousetrap.model.outcome import Output, output_to, outputs_to
from mousetrap.model.targets import SentMessage


class Recorder:
    """Records outputs for the outcome, with bodies of up to *max_body* bytes (0: without)."""

    def __init__(self, max_body: int) -> None:
        self._max_body = max_body

    def outputs(
        self, writes: str, outputs: Sequence[Message], sent: Sequence[SentMessage]
    ) -> tuple[Output, ...]:
        """Return the *outputs* to the queue *writes*, then what was *sent* to other targets."""
        recorded = outputs_to(writes, len(outputs))
        if self._max_body:
            recorded = tuple([Output(each.id, writes, self.kept(each.body)) for each in outputs])
        if sent:
            recorded += tuple(
                output_to(
                    e.target, e.message.id, self.kept(e.message.body), e.options.delay,
                    is_own=e.is_own,
                )
                for e in sent
                if NOTICE not in e.message.headers  # for a join, which reports no outcome of it
            )  # fmt: skip
        return recorded

    def job_body(self, message: Message) -> bytes | None:
        """Return the body of *message* if it is a job and its body is kept."""
        return None if message.parent else self.kept(message.readable_body)

    def kept(self, body: bytes) -> bytes | None:
        """Return *body* if it is kept."""
        return body if 0 < self._max_body >= len(body) else None
