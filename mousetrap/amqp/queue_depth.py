"""Asking how full queues are, once or again and again over one connection."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pika

from mousetrap.amqp.blocking_channel import JobChannel, connect
from mousetrap.amqp.error_translation import translated
from mousetrap.settings import Settings


@dataclass(frozen=True)
class Depth:
    """How full a queue is: messages ready for delivery (not the unacked ones), and consumers."""

    queue: str
    messages: int
    consumers: int


class QueueDepthReader:
    """Opens a connection at the first `read` and keeps it; after an error the next opens another.

    Threads: one at a time.
    """

    def __init__(self, settings: Settings, purpose: str) -> None:
        self._settings = settings
        self._purpose = purpose
        self._connection: JobChannel | None = None
        self._channel: JobChannel | None = None

    def read(self, queues: Iterable[str]) -> dict[str, Depth | None]:
        """Ask for each of *queues*; None where there is no such queue.

        Raises:
            WireError: there is no answer; says what to check.
        """
        try:
            with translated(self._settings):
                self._connection = self._connection or connect(self._settings, self._purpose)
                return {queue: self._ask(self._connection, queue) for queue in queues}
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection; the next `read` opens another."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            connection.close()

    def _ask(self, connection: JobChannel, queue: str) -> Depth | None:
        # A missing queue closes the channel, not the connection: the next is asked on another.
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
