"""Notices that a queue is gone when a connection is restored, before it is declared again.

Clients declare their queues again after each reconnect. If a queue has been deleted meanwhile, or
lost by the broker, the declaration makes an empty one of that name, and the client gets no error.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from pika.channel import Channel
from pika.connection import Connection
from pika.exceptions import ChannelClosedByBroker, NoFreeChannels

from mousetrap.display.safe_text import repr_of, safe
from mousetrap.runtime import clock

SHOWN_TIME = 600.0  # seconds for which `problem` names a lost queue; its log line stays
REPEAT_TIME = 30.0  # seconds in which a second connection that finds the same queue lost is silent

log = logging.getLogger("mousetrap.amqp.lost_queues")


class LostQueues:
    """Asks for the queues *names* (on the wire), and remembers those that did not exist.

    It uses a channel of its own, because the broker closes a channel on which a queue is missing,
    or the permission to ask for it. What cannot be asked is not known to be lost. Of several
    clients that declare the same queue, the first one that is connected again finds it lost.

    Threads: `check` on the I/O thread, `problem` from any.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = list(dict.fromkeys(names))
        self._lost: dict[str, float] = {}  # queue -> when it was found lost, on the monotonic clock

    @property
    def problem(self) -> str:
        """Which queues were found lost in the last minutes, and what to do; "" if none was."""
        now = clock.monotonic()
        lost = [name for name, at in list(self._lost.items()) if now - at < SHOWN_TIME]
        return "; ".join(_description(name) for name in lost)

    def check(self, connection: Connection, then: Callable[[], object]) -> None:
        """Ask for each queue; call *then* when all answers are there, or none can come."""
        self._ask(connection, list(self._names), then)

    def _ask(self, connection: Connection, left: list[str], then: Callable[[], object]) -> None:
        if not left or not connection.is_open:
            then()
            return

        def on_open(channel: Channel) -> None:
            channel.queue_declare(left[0], passive=True, callback=on_answer)

        def on_answer(_: Any) -> None:
            left.pop(0)
            if left:
                channel.queue_declare(left[0], passive=True, callback=on_answer)
            else:
                channel.close()

        def on_closed(_: Channel, reason: Exception) -> None:
            if isinstance(reason, ChannelClosedByBroker) and left:
                # 404 also says that the node of a queue is down: then the queue is not lost
                if reason.reply_code == 404 and "no queue" in reason.reply_text:
                    self._add(left[0])
                left.pop(0)
            self._ask(connection, left, then)

        try:
            channel = connection.channel(on_open_callback=on_open)
        except NoFreeChannels:
            then()
            return
        channel.add_on_close_callback(on_closed)

    def _add(self, name: str) -> None:
        now, before = clock.monotonic(), self._lost.get(name)
        self._lost[name] = now
        if before is None or now - before > REPEAT_TIME:
            log.warning("%s", _description(name))


def _description(name: str) -> str:
    return (
        f"queue {safe(repr_of(name))} did not exist any more when the connection was restored, so "
        f"a new, empty one was declared: the messages that waited in it are gone, and so may those "
        f"in its retry queues and its dead queue. Find out whether the broker was reset or "
        f"replaced, or who deleted the queue"
    )
