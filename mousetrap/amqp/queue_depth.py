"""Reading how many messages and consumers queues have, any number of times over one connection."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pika

from mousetrap.amqp import pika_log
from mousetrap.amqp.blocking_channel import JobChannel, connect
from mousetrap.amqp.error_translation import translated
from mousetrap.model.topology import work_queue_of
from mousetrap.runtime import clock
from mousetrap.settings import Settings

READ_TIMEOUT = 30.0  # seconds for the depths of all queues of one `read`


@dataclass(frozen=True)
class Depth:
    """A queue's number of messages ready for delivery (not the unacked ones) and of consumers."""

    queue: str
    messages: int
    consumers: int


def is_not_needed_yet(
    queue: str, settings: Settings, timeout: float = READ_TIMEOUT, until: float = 0.0
) -> bool:
    """Return whether *queue* is a retry or dead queue that is declared when a message needs it.

    That is: it does not exist, and the work queue that it belongs to does. While that is so, it
    waits, *until* a monotonic time at most. Raises what `QueueDepthReader.read` raises.
    """
    work = work_queue_of(queue)
    if work is None:
        return False
    reader = QueueDepthReader(settings, "question")
    try:
        while True:
            found = reader.read([queue, work], timeout)
            if found[queue] is not None or found[work] is None:
                return False
            if not clock.remaining(until):
                return True
            clock.sleep(min(0.1, clock.remaining(until)))
    finally:
        reader.close()


class QueueDepthReader:
    """Opens a connection at the first `read` and keeps it; after an error, opens another.

    Threads: one at a time.
    """

    def __init__(self, settings: Settings, purpose: str) -> None:
        self._settings = settings
        self._purpose = purpose
        self._connection: JobChannel | None = None
        self._channel: JobChannel | None = None

    def read(self, queues: Iterable[str], timeout: float = READ_TIMEOUT) -> dict[str, Depth | None]:
        """Return the depth of each of *queues*; None for a queue that does not exist.

        Raises:
            WireError: the broker did not answer within *timeout* seconds, or refused; the message
                says what to check.
        """
        deadline = clock.monotonic() + timeout
        try:
            with translated(self._settings), pika_log.quiet():  # a missing queue is no error
                connection = self._connection
                if connection is None:
                    connection = connect(self._settings, self._purpose, deadline)
                    self._connection = connection
                with connection.limited(deadline):
                    return {queue: self._read(connection, queue) for queue in queues}
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection; the next `read` opens another."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            with pika_log.quiet():
                connection.close()

    def _read(self, connection: JobChannel, queue: str) -> Depth | None:
        # A missing queue closes the channel, not the connection: the next read opens another.
        self._channel = self._channel or connection.connection.channel()
        name = self._settings.topology.wire_name(queue)
        try:
            answer = self._channel.queue_declare(name, passive=True).method
        except pika.exceptions.ChannelClosedByBroker as closed:
            self._channel = None
            if closed.reply_code != 404:
                raise
            return None
        return Depth(queue, answer.message_count, answer.consumer_count)
