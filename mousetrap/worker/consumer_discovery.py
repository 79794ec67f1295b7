"""Who else consumes a queue: the broker knows how many, and ours say who they are when asked.

A question is one message on the events exchange, with a routing key that no fate has. Each worker
hears it by a queue of its own, which goes with its connection, and answers into that of who asked.
Nobody pays while nobody asks. Where the broker forbids such a queue, or events are switched off,
there are numbers and no names.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from mousetrap.amqp.exclusive_queue import ExclusiveQueue
from mousetrap.amqp.properties import request_properties
from mousetrap.amqp.publisher import Publisher
from mousetrap.display.safe_text import safe
from mousetrap.errors import MousetrapError, UndecodableMessage
from mousetrap.model.message import decode
from mousetrap.runtime import clock, randomness, threads
from mousetrap.runtime.environment import is_kernel, program_name
from mousetrap.runtime.interrupt import Waiter
from mousetrap.settings import Settings

log = logging.getLogger("mousetrap.worker.consumer_discovery")

PATIENCE = 0.5  # seconds for answers; a worker's I/O thread needs a few milliseconds
MOST = 100  # answers that are kept; nobody reads a longer list
LIFE = 2000  # milliseconds that a question or an answer waits to be heard
_SHARES = {1 / 2: "half", 1 / 3: "a third", 2 / 3: "two thirds", 1 / 4: "a quarter"}


class Question(msgspec.Struct, frozen=True, tag=True):
    """Who consumes *queue*, by its name on the wire?"""

    queue: str


class Presence(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One worker, as it introduces itself."""

    worker: str  # a word that no other worker has
    process: str  # one that no other process has; pids repeat from container to container
    host: str
    pid: int
    program: str  # analysis.ipynb, mousetrap work, ...
    stage: str

    def __str__(self) -> str:
        return safe(f"{self.program} ({self.stage}) on {self.host}, pid {self.pid}", 200)


@dataclass(frozen=True)
class Attached:
    """Who consumes a queue at one moment: how many, how many of them here, and who else."""

    consumers: int  # all of them, as the broker says
    here: int  # those of this process
    others: tuple[Presence, ...] = ()  # those elsewhere that said who they are

    @property
    def elsewhere(self) -> int:
        """How many are not of this process."""
        return max(0, self.consumers - self.here)

    @property
    def warning(self) -> str:
        """What to expect of a queue that others consume as well; "" when nobody else does."""
        if not self.elsewhere:
            return ""
        share = self.here / self.consumers
        verb = "is" if self.elsewhere == 1 else "are"
        home = "kernel" if is_kernel() else "process"
        return (
            f"{self.consumers} attached, {self.elsewhere} {verb} not from this {home}: you will "
            f"see about {_SHARES.get(share, f'{share:.0%}')} of the messages"
        )

    def lines(self) -> list[str]:
        """The warning, and a line for each of the others; nothing when there are none."""
        if not self.elsewhere:
            return []
        silent = self.elsewhere - len(self.others)
        rest = f"{silent:,} that did not say who: other clients, or too busy to answer"
        return [self.warning, *map(str, self.others), *([rest] if silent > 0 else [])]

    def __str__(self) -> str:
        return self.warning or f"{self.consumers} attached"


class ConsumerDiscovery:
    """Hears questions about *queue* (on the wire) and answers them by *publisher*; asks, too.

    The worker's consumer opens `own_queue` on its connection. Questions and answers are sent on the
    connection that publishes: a broker with an alarm stops reading from it, which must not happen
    to the one that acks.

    Threads: `ask` from any but the I/O threads.
    """

    def __init__(self, settings: Settings, queue: str, publisher: Publisher) -> None:
        self.stage = ""  # what the worker is called now
        self.is_deaf = True  # the worker does not consume yet, or not any more
        self._exchange = settings.topology.events_exchange
        self._key = settings.topology.discovery_key
        self._queue = queue
        self._publisher = publisher
        self._worker = randomness.new_id()
        self._asking = threads.Lock()
        self._changed = Waiter()
        self._heard: dict[str, Presence] = {}
        self.own_queue: ExclusiveQueue | None = None  # None where events are switched off
        if self._exchange:
            self.own_queue = ExclusiveQueue(
                _stem(queue),
                self._exchange,
                self._key,
                ttl=LIFE,
                on_message=self._on_message,
                on_change=self._on_change,
            )

    def ask(self, expected: int, patience: float = PATIENCE) -> tuple[Presence, ...]:
        """Ask who consumes the queue elsewhere; return when *expected* have said so.

        Or after *patience* seconds: others may be silent for ever.
        """
        deadline = clock.monotonic() + patience
        if (own := self.own_queue) is None:
            return ()
        with self._asking:
            self._heard.clear()
            self._changed.wait_for(lambda: bool(own.name) or own.is_refused, patience)
            if not own.name:
                return ()
            for part in (2, 1):  # twice: one that has just started may not listen yet
                with suppress(MousetrapError):  # the publisher is closed: so is this worker
                    self._send(Question(self._queue), self._exchange, self._key, own.name)
                left = clock.remaining(deadline) / part
                if self._changed.wait_for(lambda: len(self._heard) >= expected, left):
                    break
            found = list(self._heard.values())
        return tuple(sorted(found, key=lambda each: (each.program, each.host, each.pid)))

    # ---- I/O thread ------------------------------------------------------------------------------

    def _on_change(self) -> None:
        self._changed.notify_all()
        if self.own_queue is not None and self.own_queue.is_refused:
            reason = self.own_queue.refusal
            log.debug("%s: others cannot ask for this consumer: %s", self._queue, reason)

    def _on_message(self, body: bytes, reply_to: str | None) -> None:
        try:
            message = decode(body, Question | Presence)
        except UndecodableMessage:  # somebody else's on our exchange
            return
        if isinstance(message, Question):
            self._on_question(message, reply_to)
        elif message.process != _process() and len(self._heard) < MOST:
            self._heard[message.worker] = message
            self._changed.notify_all()

    def _on_question(self, question: Question, reply_to: object) -> None:
        # Not into any queue that somebody names: it might be one that people work from.
        stem = _stem(self._queue)
        is_ours = isinstance(reply_to, str) and reply_to.startswith(stem)
        if question.queue == self._queue and is_ours and not self.is_deaf:
            presence = Presence(
                worker=self._worker,
                process=_process(),
                host=socket.gethostname(),
                pid=os.getpid(),
                program=program_name(),
                stage=self.stage,
            )
            with suppress(MousetrapError):
                self._send(presence, "", str(reply_to))

    def _send(
        self, message: Question | Presence, exchange: str, key: str, reply_to: str | None = None
    ) -> None:
        properties = request_properties(reply_to, LIFE)
        self._publisher.publish_to_exchange(
            msgspec.json.encode(message), exchange, key, lambda _: None, properties
        )


_counting = threads.Lock()
_consuming: Counter[tuple[object, ...]] = Counter()  # consumers by place, queue and process


def note(settings: Settings, queue: str, change: int) -> None:
    """Note that this process has *change* more consumers of *queue* (on the wire)."""
    with _counting:
        _consuming[_place(settings, queue)] += change


def here(settings: Settings, queue: str) -> int:
    """How many consumers of *queue* (on the wire) this process has."""
    return _consuming[_place(settings, queue)]


def _place(settings: Settings, queue: str) -> tuple[object, ...]:
    host = "localhost" if settings.host in ("127.0.0.1", "::1") else settings.host
    return host, settings.port, settings.vhost, queue, os.getpid()  # not the parent's, in a fork


_token = ("", 0)


def _process() -> str:
    global _token
    if _token[1] != os.getpid():  # made anew in a fork
        _token = (randomness.new_id(), os.getpid())
    return _token[0]


def _stem(queue: str) -> str:
    # Like the queue: who may use that one may use this, where permissions go by names. An id of
    # 32 characters follows, and a name may have 255 bytes.
    return f"{queue.encode()[:200].decode(errors='ignore')}.who."
