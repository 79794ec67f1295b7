"""Counting what is in queues, over a connection that is open for something else.

`QueueDepthReader` opens a connection of its own, which takes longer than the question. Here each
queue is asked for on an extra channel of the connection, because the broker closes a channel on
which it is asked for a queue that does not exist.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pika.channel import Channel
from pika.exceptions import ChannelClosedByBroker, NoFreeChannels

from mousetrap.amqp.connection import Connection
from mousetrap.amqp.error_translation import translate
from mousetrap.amqp.queue_depth import Depth
from mousetrap.errors import ConnectionLost, MousetrapError
from mousetrap.runtime.interrupt import Waiter

# Channels that one `read` uses at the same time. A missing queue costs one; a guess.
MAX_CHANNELS = 8


class _Question:
    """The queues that one `read` asks for, and the answers so far."""

    def __init__(self, queues: Iterable[str]) -> None:
        self.left = list(dict.fromkeys(queues))  # not asked for so far
        self.asked = 0  # asked for, and not answered
        self.found: dict[str, Depth | None] = {}
        self.error: MousetrapError | None = None
        self.is_impossible = False  # the connection has no channel for it
        self.changed = Waiter()

    @property
    def is_over(self) -> bool:
        is_answered = not self.left and not self.asked
        return is_answered or self.is_impossible or self.error is not None


class QueueCounter:
    """Asks over *connection*, and keeps its channels for the next question.

    Threads: `read` from any but the I/O thread, several at a time.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        # I/O thread only:
        self._idle: list[Channel] = []
        self._asked: dict[Channel, tuple[_Question, str]] = {}  # what each busy channel asks for

    def read(self, queues: Iterable[str], timeout: float) -> dict[str, Depth | None] | None:
        """Return the depth of each of *queues* (plain names); None for one that does not exist.

        The whole answer is None if the connection is not open, or has no channel left.

        Raises:
            ConnectionLost: the broker did not answer within *timeout* seconds.
            WireError: it refused.
        """
        question = _Question(queues)
        self._connection.call(lambda: self._ask(question))
        is_over = question.changed.wait_for(
            lambda: question.is_over or not self._connection.is_open, timeout
        )
        if question.error is not None:
            raise question.error
        if not is_over:
            raise ConnectionLost(
                f"{self._connection.settings.url} did not say within {timeout:.3g} s what is in "
                f"the queues: it is paused, overloaded or cut off; look at the broker, then try "
                f"again"
            )
        is_answered = question.is_over and not question.is_impossible
        return question.found if is_answered else None

    # ---- I/O thread ----------------------------------------------------------------------------

    def _ask(self, question: _Question) -> None:
        self._asked = {each: asked for each, asked in self._asked.items() if not each.is_closed}
        for _ in range(min(len(question.left), MAX_CHANNELS)):
            self._use_channel(question)

    def _use_channel(self, question: _Question) -> None:
        """Take a channel, and ask for the next queue on it."""
        self._idle = [each for each in self._idle if each.is_open]
        if self._idle:
            self._ask_on(self._idle.pop(), question)
            return
        try:
            channel = self._connection.extra_channel(lambda opened: self._ask_next(opened))
        except (ConnectionLost, NoFreeChannels):
            if not question.asked:  # otherwise the other channels ask for the rest
                question.is_impossible = True
                question.changed.notify_all()
            return
        channel.add_on_close_callback(self._on_closed)
        self._asked[channel] = (question, question.left.pop(0))
        question.asked += 1

    def _ask_on(self, channel: Channel, question: _Question) -> None:
        self._asked[channel] = (question, question.left.pop(0))
        question.asked += 1
        self._ask_next(channel)

    def _ask_next(self, channel: Channel) -> None:
        _, queue = self._asked[channel]
        name = self._connection.settings.topology.wire_name(queue)

        def on_answer(frame: Any) -> None:
            depth = Depth(queue, frame.method.message_count, frame.method.consumer_count)
            self._answered(channel, depth)

        channel.queue_declare(name, passive=True, callback=on_answer)

    def _on_closed(self, channel: Channel, reason: Exception) -> None:
        if channel not in self._asked:
            return
        if isinstance(reason, ChannelClosedByBroker) and reason.reply_code == 404:
            self._answered(channel, None)
        else:
            question, _ = self._asked.pop(channel)
            question.error = translate(reason, self._connection.settings)
            question.changed.notify_all()

    def _answered(self, channel: Channel, depth: Depth | None) -> None:
        question, queue = self._asked.pop(channel)
        question.found[queue] = depth
        question.asked -= 1
        if channel.is_open:
            self._idle.append(channel)
        if question.left and question.error is None:
            self._use_channel(question)
        if question.is_over:
            question.changed.notify_all()
