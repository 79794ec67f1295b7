"""Queues as values: which queues exist beside a work queue, and with which arguments.

A work queue is declared durable and **without arguments**, so that a notebook that declares it in
plain pika never meets 406. Whatever retries and dead letters need lives in queues of our own
beside it. What becomes of messages is told on one exchange. Nothing here talks to a broker.
Prototyped in ``notebooks/05_failures.ipynb``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from mousetrap.errors import SettingsError

DEFAULT_RETRY_DELAYS = (1.0, 5.0, 25.0)  # seconds; three tries outlast a broker restart
EVENTS_EXCHANGE = "mousetrap.events"
MAX_DELAY = 86_400.0  # seconds: a day; longer waits belong in a scheduler, not in a queue
_NAME = re.compile(r"[^\x00-\x1f\x7f]+")  # AMQP allows any UTF-8; control bytes only confuse people
_SURROGATE = re.compile("[\ud800-\udfff]")  # what a shell's bytes become that are not UTF-8


@dataclass(frozen=True)
class Declaration:
    """One durable queue as the broker is to know it: its name on the wire and its arguments."""

    name: str
    arguments: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Exchange:
    """One durable topic exchange as the broker is to know it."""

    name: str


@dataclass(frozen=True)
class Binding:
    """A queue gets what comes to an exchange with this routing key."""

    queue: str
    exchange: str
    key: str


AnyDeclaration = Declaration | Exchange | Binding


@dataclass(frozen=True)
class Queue:
    """A work queue and where its failures wait: ``start_fetch.retry.5s``, ``start_fetch.dead``.

    Messages that lost their worker again and again are in ``start_fetch.quarantine`` (see
    `poison_messages.after_loss`).

    `retry_delays` are seconds, one per retry: ``(1.0, 5.0, 25.0)`` means at most four attempts.
    """

    name: str
    retry_delays: tuple[float, ...] = DEFAULT_RETRY_DELAYS

    def __post_init__(self) -> None:
        check_queue_name(self.name)
        object.__setattr__(self, "retry_delays", tuple(float(delay) for delay in self.retry_delays))
        for delay in self.retry_delays:
            if not 0 < delay <= MAX_DELAY:  # NaN fails this as well
                raise SettingsError(
                    f"retry delay {delay:g} s of queue {self.name!r}: it must lie above 0 and "
                    f"up to {MAX_DELAY:g} seconds"
                )

    @property
    def dead(self) -> str:
        """Name of the queue where messages end that cannot be handled."""
        return f"{self.name}.dead"

    @property
    def quarantine(self) -> str:
        """Name of the queue from which each worker takes one message at a time."""
        return f"{self.name}.quarantine"

    def retry_queues(self) -> dict[str, float]:
        """Map each retry queue's name to its delay in seconds."""
        # One queue per delay: RabbitMQ expires messages from the head only, so a long
        # delay in front would hold back every shorter one behind it.
        return {self.retry_queue(delay): delay for delay in self.retry_delays}

    def retry_queue(self, delay: float) -> str:
        """Name of the queue where a message waits *delay* seconds."""
        return f"{self.name}.retry.{delay:g}s"

    def names(self) -> list[str]:
        """Every name that belongs to this queue, the work queue first."""
        return [self.name, *self.retry_queues(), self.dead, self.quarantine]


@dataclass(frozen=True)
class Topology:
    """How names become queues on the wire: namespace, queue type and expiry.

    `namespace` is a prefix: ``run-7f3a`` turns ``start_fetch`` into ``run-7f3a.start_fetch``.
    Queues in a namespace carry ``x-expires`` of `expiry` seconds, so that a killed kernel cleans
    up after itself; a live worker re-declares its queues long before (that renews the lease).
    """

    namespace: str = ""
    queue_type: str = "classic"
    expiry: float = 600.0  # seconds
    events_exchange: str = EVENTS_EXCHANGE  # "" tells nobody

    def wire_name(self, name: str) -> str:
        """The name the broker knows."""
        return f"{self.namespace}.{name}" if self.namespace else name

    def plain_name(self, wire_name: str) -> str:
        """The name people use: the inverse of `wire_name`."""
        return wire_name.removeprefix(f"{self.namespace}.") if self.namespace else wire_name

    def work_queue(self, name: str) -> Declaration:
        """A queue that stages read or write; outside a namespace it carries no arguments at all."""
        return Declaration(self.wire_name(check_queue_name(name)), self._arguments())

    def declarations(self, queue: Queue) -> list[Declaration]:
        """All queues that *queue* consists of, the work queue first."""
        retries = [
            Declaration(self.wire_name(name), self._arguments() | self._way_back(queue, delay))
            for name, delay in queue.retry_queues().items()
        ]
        # the name was checked
        others = [
            Declaration(self.wire_name(name), self._arguments())
            for name in (queue.dead, queue.quarantine)
        ]
        return [self.work_queue(queue.name), *retries, *others]

    @property
    def events_key(self) -> str:
        """The routing key of this namespace's fates; outside any namespace it is ``-``."""
        return self.namespace or "-"

    @property
    def discovery_key(self) -> str:
        """The routing key of questions to this namespace's workers: no namespace has a colon."""
        return f"who:{self.events_key}"

    def events_queue(self, name: str = "events") -> list[AnyDeclaration]:
        """A queue that gets every fate of this namespace, and what it takes to fill it."""
        queue = Declaration(self.wire_name(name), self._arguments())
        exchange = Exchange(self.events_exchange)
        return [queue, exchange, Binding(queue.name, exchange.name, self.events_key)]

    def _arguments(self) -> dict[str, object]:
        arguments: dict[str, object] = {}
        # classic is the broker's default: say nothing, meet no 406
        if self.queue_type != "classic":
            arguments["x-queue-type"] = self.queue_type
        if self.namespace:
            arguments["x-expires"] = _milliseconds(self.expiry)
        return arguments

    def _way_back(self, queue: Queue, delay: float) -> dict[str, object]:
        arguments: dict[str, object] = {
            "x-message-ttl": _milliseconds(delay),
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": self.wire_name(queue.name),
        }
        if self.queue_type == "quorum":
            # Without both, a quorum queue forgets a message before its target has it.
            arguments |= {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
        return arguments


def check_queue_name(name: str) -> str:
    """Return *name* if a work queue can have it.

    Raises:
        SettingsError: empty, longer than 190 UTF-8 bytes (AMQP allows 255; the rest is for a
            namespace and ``.retry.1.23457e-05s``), not text that has UTF-8, with control
            characters, or starting with ``amq.``.
    """
    size = len(name.encode("utf-8", "surrogatepass"))
    problem = (
        "is empty" if not name
        else "is longer than 190 bytes" if size > 190
        else "is not valid UTF-8" if _SURROGATE.search(name)
        else "contains control characters" if not _NAME.fullmatch(name)
        else "starts with 'amq.', which belongs to the broker" if name.startswith("amq.")
        else None
    )  # fmt: skip
    if problem:
        raise SettingsError(f"queue name {name[:60]!r} {problem}; use a short plain word")
    return name


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
