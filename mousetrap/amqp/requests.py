"""Requests and their answers over one channel, by RabbitMQ's direct reply-to.

The broker sends answers to the channel on which the requests were published, without a queue. If
the channel is lost, so are the answers to the requests that were on their way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pika.channel import Channel

from mousetrap.amqp.properties import REPLY_TO, AMQPProperties, call_properties
from mousetrap.amqp.publisher import Publisher
from mousetrap.amqp.receipt import Receipt
from mousetrap.errors import ConnectionLost, MousetrapError
from mousetrap.model.message import Message
from mousetrap.runtime import clock
from mousetrap.runtime.interrupt import Waiter
from mousetrap.settings import Settings


class Request:
    """One request: `answer` is set when it came, or `error` when none can come any more.

    Threads: any.
    """

    def __init__(self, message: Message, on_done: Callable[[], object] | None) -> None:
        self.message = message
        self.sent = clock.monotonic()
        self.answer: Message | None = None
        self.error: MousetrapError | None = None
        self.receipt: Receipt | None = None
        self._done = Waiter()
        self._on_done = on_done

    @property
    def is_done(self) -> bool:
        """Whether there is an answer or an error."""
        return self.answer is not None or self.error is not None

    def wait(self, timeout: float) -> bool:
        """Wait until it is done; return whether it was within *timeout* seconds."""
        return self._done.wait_for(lambda: self.is_done, timeout)

    def finish(self, answer: Message | None, error: MousetrapError | None = None) -> None:
        """Set the answer or the error, and wake the thread that waits."""
        if not self.is_done:
            self.error, self.answer = error, answer
            self._done.notify_all()
            if self._on_done is not None:
                self._on_done()


class Requests(Publisher):
    """Sends requests from any thread, and gives each its answer.

    Several requests wait at a time; an answer belongs to the request with its correlation id.
    `late` counts the answers that came when nobody waited any more.

    Threads: any.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, "call")
        self.late = 0
        self._waiting: dict[str, Request] = {}  # by correlation id, which is the message's id

    def request(
        self,
        message: Message,
        queue: str,
        deadline: float,
        *,
        priority: int | None = None,
        on_done: Callable[[], object] | None = None,
        on_confirmed: Callable[[], object] | None = None,
    ) -> Request:
        """Publish the request *message* to *queue*; call `forget` when nobody waits any more.

        Waits for room until *deadline* (monotonic) at most. *on_done* and *on_confirmed* are called
        on the I/O thread.

        Raises what `Publisher.publish` raises: nothing was sent.
        """
        request = Request(message, on_done)

        def on_outcome(receipt: Receipt) -> None:
            if not receipt.confirmed:
                request.finish(None, receipt.error)
            elif on_confirmed is not None:
                on_confirmed()

        properties = call_properties(message.id, priority)
        request.receipt = receipt = self._receipt(message, queue, properties, on_outcome)
        self._waiting[message.id] = request
        try:
            self.window.wait_for_room(min(deadline, receipt.deadline))
            self.window.submit((receipt,))
        except BaseException:
            self.forget(request)
            raise
        return request

    def forget(self, request: Request) -> None:
        """Wait for the answer to *request* no longer: if it still comes, it counts as late."""
        self._waiting.pop(request.message.id, None)

    # ---- I/O thread ----------------------------------------------------------------------------

    def opened(self, channel: Channel, ready: Callable[[], None]) -> None:
        """Session: consume answers on the channel on which requests are published."""
        channel.basic_consume(REPLY_TO, self._on_answer, auto_ack=True)
        super().opened(channel, ready)

    def lost(self, error: MousetrapError) -> None:
        """Session: the answers to requests that were sent cannot arrive any more."""
        super().lost(error)
        self._fail_sent(error)

    def failed(self, error: MousetrapError) -> None:
        """Session: the connection will not be restored."""
        super().failed(error)
        self._fail_sent(error)

    def _fail_sent(self, error: MousetrapError) -> None:
        for request in list(self._waiting.values()):
            receipt = request.receipt
            if receipt is not None and receipt.confirmed:
                request.finish(None, ConnectionLost(
                    f"the connection was lost while request {request.message.short_id} to "
                    f"{receipt.queue!r} waited for its answer, which cannot arrive any more. The "
                    f"broker has the request: it is handled, or was. To ask again, call again "
                    f"({error})"
                ))  # fmt: skip

    def _on_answer(self, _: Channel, __: Any, properties: AMQPProperties, body: bytes) -> None:
        request = self._waiting.pop(str(properties.correlation_id), None)
        if request is None:
            self.late += 1
        else:
            request.finish(Message.from_wire(body, properties))
