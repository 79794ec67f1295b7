"""Queues as values: which queues belong to a work queue, and with which arguments.

A work queue is declared durable and **without arguments**, so that a notebook that declares it in
plain pika gets no 406; only its `Queue`, the queue type quorum, and the expiry of runs, checks and
tests, add arguments. Retries and dead letters have queues of their own beside it, which are
declared when the first message needs them. Outcomes are published to one exchange. Nothing here
talks to a broker; each says how it is made (`How`). Prototyped in ``notebooks/05_failures.ipynb``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from mousetrap.display.field_table import field_table
from mousetrap.errors import SettingsError
from mousetrap.model.exchanges import UNROUTED, Bindings, Exchange, RoutingKey
from mousetrap.model.names import name_problem
from mousetrap.model.queue_arguments import (
    DEAD_LETTER_EXCHANGE,
    DEAD_LETTER_KEY,
    check_arguments,
    check_queue_type,
)

DEFAULT_RETRY_DELAYS = (1.0, 5.0, 25.0)  # seconds; three tries outlast a broker restart
EVENTS_EXCHANGE = "mousetrap.events"
MAX_DELAY = 86_400.0  # seconds: a day; longer waits are a scheduler's job, not a queue's
SUBSTITUTE = ".2"  # ends the name of the queue used instead of one that exists with other arguments
_FOR_FAILURES = re.compile(r"(?P<work>.+)\.(?:dead|(?:retry|delay)\.[0-9.e+-]+s(?:\.2)?)")

How: TypeAlias = Literal["now", "missing", "compare", "exists"]
"""How a queue or an exchange is declared.

- ``now``: it is declared. It belongs to a run, a check or a test.
- ``missing``: it is declared if it does not exist. One that exists keeps its arguments.
- ``compare``: it is declared, so that the broker compares its arguments with those of one that
  exists. If the user may not declare it, it must exist.
- ``exists``: it must exist, and is never declared.
"""


@dataclass(frozen=True)
class Declaration:
    """One durable queue as it is declared: its name on the wire and its arguments."""

    name: str
    arguments: Mapping[str, object] = field(default_factory=dict)
    how: How = "now"


@dataclass(frozen=True)
class ExchangeDeclaration:
    """One durable exchange as it is declared: its name on the wire, its type and its arguments."""

    name: str
    type: str = "topic"
    arguments: Mapping[str, object] = field(default_factory=dict)
    is_auto_deleted: bool = False  # by the broker, with its last binding
    how: How = "now"
    is_optional: bool = False  # without it nothing is published to it, and all else works


@dataclass(frozen=True)
class Binding:
    """A binding: messages with this routing key go from the exchange to the queue."""

    queue: str
    exchange: str
    key: str


AnyDeclaration = Declaration | ExchangeDeclaration | Binding


@dataclass(frozen=True)
class Queue:
    """A work queue and its retry, dead and quarantine queues: ``start_fetch.retry.5s``, ...

    `retry_delays` are seconds, one per retry: ``(1.0, 5.0, 25.0)`` means at most four attempts.
    ``start_fetch.quarantine`` holds messages whose worker was lost more than once, or whose ack
    timed out (see `mousetrap.model.poison_messages`). `bindings` are the exchanges that pass a copy
    of each message with a matching key to this queue: ``[orders["order.*.paid"]]``.

    `arguments` are those that RabbitMQ knows: ``{"x-max-priority": 10}``. The queue is declared
    with them, also by the stages of its flow that write it; if it exists with others, that is an
    error. Each stage that names the queue gives it the same ones. RabbitMQ itself moves dead
    letters out of a classic queue at most once: those under way are lost if it is killed.

    With ``declare=False`` the queue exists already, with whatever arguments and bindings. Outside
    of runs, checks and tests it is never declared or bound, and a worker that does not find it does
    not start. A run makes its own, with the bindings and `arguments` that are given here.

    Raises:
        SettingsError: it cannot have that name, delay, binding or argument; or it would drop
            messages without a word (see `mousetrap.model.queue_arguments`).
    """

    name: str
    retry_delays: tuple[float, ...] = DEFAULT_RETRY_DELAYS
    bindings: Bindings = ()  # type: ignore[assignment]  # none; see `Bindings`
    declare: bool = True
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    join: str = ""  # the queue in which a join of this one's messages collects their parts

    def __post_init__(self) -> None:
        check_queue_name(self.name)
        checked = check_arguments(self.name, self.arguments, is_declared=self.declare)
        object.__setattr__(self, "arguments", checked)
        many = self.bindings if isinstance(self.bindings, (list, tuple)) else (self.bindings,)
        object.__setattr__(self, "bindings", tuple(map(self._binding, many)))
        object.__setattr__(self, "retry_delays", tuple(float(delay) for delay in self.retry_delays))
        for delay in self.retry_delays:
            if not 0 < delay <= MAX_DELAY:  # NaN fails this as well
                raise SettingsError(
                    f"retry delay {delay:g} s of queue {self.name!r}: it must lie above 0 and "
                    f"up to {MAX_DELAY:g} seconds"
                )

    def _binding(self, given: Any) -> RoutingKey:
        if isinstance(given, Exchange) and given.type == "fanout":
            return given[""]
        if isinstance(given, RoutingKey) and given.is_fixed:
            return given
        raise SettingsError(
            f"queue {self.name!r} cannot be bound by {given if given is None else str(given)!r}: "
            f"give an exchange with a text as the key, as in bindings=[orders['order.*']]"
        )

    def _repr_html_(self) -> str:
        return field_table(self, f"Queue {self.name}", units={"retry_delays": "s"})._repr_html_()

    @property
    def dead(self) -> str:
        """Name of the queue for messages that will not be retried."""
        return f"{self.name}.dead"

    @property
    def quarantine(self) -> str:
        """Name of the queue from which each worker takes one message at a time."""
        return f"{self.name}.quarantine"

    def retry_queues(self) -> dict[str, float]:
        """Return the name of each retry queue with its delay in seconds."""
        # One queue per delay: RabbitMQ expires messages from the head only, so a long
        # delay in front would hold back every shorter one behind it.
        return {self.retry_queue(delay): delay for delay in self.retry_delays}

    def retry_queue(self, delay: float) -> str:
        """Return the name of the queue where a message waits *delay* seconds."""
        return f"{self.name}.retry.{delay:g}s"

    def names(self) -> list[str]:
        """Return the names of all queues that belong to this one, the work queue first.

        The retry queues and the dead queue exist only if a message has needed them.
        """
        of_join = [self.join] if self.join else []
        return [self.name, *self.retry_queues(), self.dead, self.quarantine, *of_join]

    def possible_names(self) -> list[str]:
        """Return `names`, and those of the queues that can stand in for retry queues."""
        return [*self.names(), *(name + SUBSTITUTE for name in self.retry_queues())]


@dataclass(frozen=True)
class Topology:
    """Turns plain names into queues on the wire: namespace, queue type and expiry.

    `namespace` is a prefix: ``run-7f3a`` turns ``start_fetch`` into ``run-7f3a.start_fetch``.

    With an `expiry`, which runs, checks and tests set, the classic queues of a namespace have
    ``x-expires``: the broker deletes them when nobody has used them for so long. A live worker
    declares its queues again long before that, which renews the expiry. It would not renew that of
    a quorum queue, so a quorum queue never expires: the run, or `sweep`, deletes it by its name.
    """

    namespace: str = ""
    queue_type: str = "classic"
    expiry: float | None = None  # seconds
    events_exchange: str = EVENTS_EXCHANGE  # "": no outcomes are published
    declare: str = "missing"  # or "never": all queues and exchanges must exist

    @property
    def is_own(self) -> bool:
        """Whether the namespace belongs to a run, a check or a test, with all that is in it."""
        return bool(self.namespace) and self.expiry is not None

    def wire_name(self, name: str) -> str:
        """Return *name* as the broker knows it."""
        return f"{self.namespace}.{name}" if self.namespace else name

    def plain_name(self, wire_name: str) -> str:
        """Return the name that people use: the inverse of `wire_name`."""
        return wire_name.removeprefix(f"{self.namespace}.") if self.namespace else wire_name

    def work_queue(self, queue: Queue | str) -> Declaration:
        """Return the queue that stages read or write; see the module for its arguments.

        Raises:
            SettingsError: a queue cannot have that name (see `check_queue_name`), or a queue of
                the type that the settings name cannot have its arguments.
        """
        if isinstance(queue, str):
            queue = Queue(queue, ())
        arguments = self._work_arguments(queue)
        how = self._how("compare" if arguments else "missing", is_ours=queue.declare)
        return Declaration(self.wire_name(queue.name), arguments, how)

    def declarations(self, queue: Queue) -> list[Declaration]:
        """Return the queues that a worker of *queue* consumes: the work queue and its quarantine.

        The quarantine is there from the start, or other workers would not know of it. With a single
        active consumer, one worker at a time takes messages from it.
        """
        arguments = self._arguments()
        if queue.arguments.get("x-single-active-consumer"):
            arguments["x-single-active-consumer"] = True
        name = self.wire_name(queue.quarantine)
        quarantine = Declaration(name, arguments, self._how("compare"))
        of_join = [self.join_queue(queue.join)] if queue.join else []
        return [self.work_queue(queue), quarantine, *of_join]

    def join_queue(self, name: str) -> Declaration:
        """Return the queue in which a join collects, one of its workers at a time."""
        arguments = {**self._arguments(), "x-single-active-consumer": True}
        return Declaration(self.wire_name(name), arguments, self._how("compare"))

    def not_theirs(self, *queues: Queue | str) -> list[str]:
        """Return the names on the wire of those of *queues* that are declared if they are gone."""
        return [each.name for each in map(self.work_queue, queues) if each.how != "exists"]

    def of_worker(
        self, queue: Queue, writes: Iterable[Queue | str], exchanges: Iterable[Exchange]
    ) -> list[AnyDeclaration]:
        """Return what a worker of *queue* declares that *writes* queues and *exchanges*."""
        targets = [each for exchange in exchanges for each in self.exchange(exchange)]
        queues = [*self.declarations(queue), *map(self.work_queue, writes)]
        dead = self.dead_letter_targets(queue)
        return [*queues, *dead, *self.bindings(queue), *targets]

    def bindings(self, queue: Queue) -> list[AnyDeclaration]:
        """Return the exchanges that *queue* is bound to, and its bindings.

        The broker cannot be asked for a binding. So where nothing is declared, none is made.
        """
        if self._how("now", is_ours=queue.declare) == "exists":
            return []
        exchanges = dict.fromkeys(each.exchange for each in queue.bindings)
        bindings = [
            Binding(self.wire_name(queue.name), self.wire_name(e.exchange.name), str(e.key))
            for e in queue.bindings
        ]
        return [*(each for one in exchanges for each in self.exchange(one)), *bindings]

    def exchange(self, exchange: Exchange) -> list[AnyDeclaration]:
        """Return the declarations of *exchange*: of a run's own, or of one that may exist already.

        A run's exchange is deleted with its last binding. What no queue is bound for goes, by an
        alternate exchange, to a queue of the run (see `unrouted`); elsewhere the broker returns it.
        """
        name = self.wire_name(exchange.name)
        if not self.is_own:
            return [ExchangeDeclaration(name, exchange.type, how=self._how("missing"))]
        rest = self.work_queue(unrouted(exchange.name))
        return [
            ExchangeDeclaration(rest.name, "fanout", is_auto_deleted=True),
            rest,
            Binding(rest.name, rest.name, ""),
            ExchangeDeclaration(
                name, exchange.type, {"alternate-exchange": rest.name}, is_auto_deleted=True
            ),
        ]

    def dead_letter_targets(self, queue: Queue) -> list[AnyDeclaration]:
        """Return the queue or the exchange to which RabbitMQ moves dead letters of *queue*, if any.

        It drops them where there is none. A run declares the exchange, with its type.
        """
        exchange = queue.arguments.get(DEAD_LETTER_EXCHANGE)
        if exchange is None or (not queue.declare and not self.is_own):
            return []
        if not exchange:  # that queue may have arguments, which are not known here
            found = self.work_queue(queue.arguments[DEAD_LETTER_KEY])
            return [replace(found, how="missing") if self.is_own else found]
        how: How = "missing" if self.is_own else "exists"
        return [ExchangeDeclaration(self.wire_name(exchange), how=how)]

    def failure_queues(self, queue: Queue) -> list[Declaration]:
        """Return the queues that are declared when a message of *queue* first needs one.

        These are a retry queue for each delay and the dead queue.
        """
        retries = [
            self.waiting_queue(name, queue.name, delay)
            for name, delay in queue.retry_queues().items()
        ]
        dead = Declaration(self.wire_name(queue.dead), self._arguments(), self._how("now"))
        return [*retries, dead]

    def waiting_queue(self, name: str, target: str, delay: float) -> Declaration:
        """Return the queue *name* that passes each message to the queue *target* after *delay* s.

        It is a quorum queue that removes a message when the target has accepted it. A classic queue
        removes it before that: it loses up to 2,048 messages if the broker is killed, and all that
        a full target refuses (measured). It never expires: that would delete waiting messages.
        """
        arguments = {
            "x-queue-type": "quorum",
            "x-message-ttl": _milliseconds(delay),
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": self.wire_name(target),
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",  # a condition for at-least-once
        }
        return Declaration(self.wire_name(name), arguments, self._how("now"))

    @property
    def events_key(self) -> str:
        """The routing key of this namespace's outcomes; ``-`` without a namespace."""
        return self.namespace or "-"

    @property
    def discovery_key(self) -> str:
        """The routing key of consumer discovery in this namespace.

        It cannot be another namespace's `events_key`: a namespace contains no colon.
        """
        return f"who:{self.events_key}"

    def events_queue(self, name: str = "events") -> list[AnyDeclaration]:
        """Return a queue for every outcome of this namespace, the events exchange and a binding."""
        queue = Declaration(self.wire_name(name), self._arguments())
        exchange = self.events()
        return [queue, exchange, Binding(queue.name, exchange.name, self.events_key)]

    def events(self) -> ExchangeDeclaration:
        """Return the exchange of the outcomes, which all namespaces share."""
        how: How = "compare" if self.is_own else self._how("compare")
        return ExchangeDeclaration(self.events_exchange, how=how, is_optional=not self.is_own)

    def _how(self, how: How, *, is_ours: bool = True) -> How:
        if self.is_own:
            return "now"
        return how if is_ours and self.declare != "never" else "exists"

    def _work_arguments(self, queue: Queue) -> dict[str, object]:
        """Return the arguments of *queue*, with the names in them as the broker knows them."""
        given = dict(queue.arguments)
        kind = given.get("x-queue-type", self.queue_type)
        check_queue_type(queue.name, given, kind)
        if self.is_own:
            given.pop("x-expires", None)  # a run has an expiry of its own
        if exchange := given.get(DEAD_LETTER_EXCHANGE):
            given[DEAD_LETTER_EXCHANGE] = self.wire_name(exchange)
        elif DEAD_LETTER_KEY in given:
            given[DEAD_LETTER_KEY] = self.wire_name(given[DEAD_LETTER_KEY])
        return self._arguments(kind) | given

    def _arguments(self, kind: str = "") -> dict[str, object]:
        arguments: dict[str, object] = {}
        # classic is the broker's default: without the argument there can be no 406
        if (kind or self.queue_type) != "classic":
            arguments["x-queue-type"] = kind or self.queue_type
        elif self.is_own and self.expiry is not None:
            arguments["x-expires"] = _milliseconds(self.expiry)
        return arguments


def unrouted(exchange: str) -> str:
    """Return the queue of a run for messages to *exchange* that match no binding."""
    return f"{exchange}{UNROUTED}"


def work_queue_of(name: str) -> str | None:
    """Return the work queue whose retry, delay or dead queue is *name*; None for other names."""
    found = _FOR_FAILURES.fullmatch(name)
    return found["work"] if found else None


def check_queue_name(name: str) -> str:
    """Return *name* if a work queue can have it.

    Raises:
        SettingsError: *name* is empty, longer than 190 bytes in UTF-8 (AMQP allows 255; the rest is
            for a namespace and ``.retry.1.23457e-05s``), not valid UTF-8, contains control
            characters, or starts with ``amq.``.
    """
    problem = name_problem(name)
    if problem is None and name.startswith("amq."):
        problem = "starts with 'amq.', which belongs to the broker"
    if problem:
        raise SettingsError(f"queue name {name[:60]!r} {problem}; use a short plain word")
    return name


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
