"""Notices that the queues of a run are new ones: the old ones expired, or were deleted.

Each client of a run declares the queues again when it has connected again, so a lost queue is there
again, empty, and no error shows it. The marker is a queue of the run with one message that nobody
takes. It is declared with the result queues and expires with them. If it is empty or missing, it is
not the one in which the run put the message.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from mousetrap.amqp.publisher import Publisher
from mousetrap.amqp.receipt import Receipt
from mousetrap.errors import WireError
from mousetrap.job_queue import depths
from mousetrap.model.message import Message
from mousetrap.runtime import clock, threads
from mousetrap.settings import Settings

MARKER = "run-marker"  # the plain name of the queue
ASK_TIMEOUT = 1.0  # seconds to connect to the broker, which may be away


class RunMarker:
    """The marker of the run with *settings*; *on_lost* is called once, if the marker is lost.

    Threads: any; `on_count` returns at once and calls *on_lost* on a thread of its own.
    """

    def __init__(self, settings: Settings, on_lost: Callable[[], object]) -> None:
        self._settings = settings
        self._on_lost = on_lost
        self._lock = threads.Lock()  # guards the three below
        self._is_set = False
        self._is_lost = False
        self._seen = 0.0  # on the clock of `clock.uptime`, which counts the machine's sleep, too

    def put(self, publisher: Publisher) -> None:
        """Publish the marker; it counts from the moment of its confirm."""
        publisher.publish(Message("this queue shows that it is the run's first"), MARKER,
                          callback=self._on_confirm)  # fmt: skip

    def on_count(self, messages: int) -> None:
        """Take note of the number of messages in the queue."""
        if self._is_newly_lost(messages):
            threads.Thread(target=self._on_lost, name="mousetrap-run-lost", daemon=True).start()

    def look(self) -> None:
        """Ask the broker if the marker was not seen for longer than queues live without use.

        Without that rule, a machine that wakes up would notice only when its connections do.
        """
        now = clock.uptime()
        with self._lock:
            if not self._is_set or self._is_lost or now - self._seen < self._settings.queue_expiry:
                return
            self._seen = now  # one request at a time; if it fails, the next is due as late
        self.ask()

    def ask(self) -> float:
        """Ask the broker for the marker; without an answer nothing changes. Return the seconds."""
        started = clock.monotonic()
        settings = self._settings.replace(connect_timeout=ASK_TIMEOUT)
        with suppress(WireError, TimeoutError):
            [found] = depths([MARKER], settings, timeout=ASK_TIMEOUT)
            if self._is_newly_lost(found.messages if found is not None else 0):
                self._on_lost()
        return clock.monotonic() - started

    def _is_newly_lost(self, messages: int) -> bool:
        with self._lock:
            self._seen = clock.uptime()
            is_new = self._is_set and not messages and not self._is_lost
            self._is_lost = self._is_lost or is_new
        return is_new

    def _on_confirm(self, receipt: Receipt) -> None:  # on the I/O thread
        with self._lock:
            self._is_set = self._is_set or receipt.confirmed
            self._seen = clock.uptime()
