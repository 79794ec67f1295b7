"""Where the outputs of a stage go: its targets, and which of them each output is sent to.

Each plain output goes to every target in *writes*. A `Send` goes to the target that it names, which
must be one of *writes* or *routes*. A target is a queue by its plain name, or an exchange with a
routing key. Nothing here talks to a broker. Prototyped in ``notebooks/09_shapes.ipynb``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeAlias

from mousetrap.errors import SettingsError
from mousetrap.model.delays import DEFAULT, SendOptions
from mousetrap.model.exchanges import Exchange, RoutingKey
from mousetrap.model.headers import ROUTING_HEADERS, unsendable
from mousetrap.model.message import Message, child_id
from mousetrap.model.topology import Queue, check_queue_name

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # with a default: `Send` alone is ``Send[Any]``

    T_co = TypeVar("T_co", default=Any, covariant=True)
else:
    from typing import TypeVar

    T_co = TypeVar("T_co", covariant=True)

# Between the parts of the name from which an id is computed; no name contains these characters.
_COPY, _SENT, _KEY = "\x1f", "\x1e", "\x1d"

Address: TypeAlias = str | RoutingKey
"""Where one message is sent: the plain name of a queue, or an exchange with a text as its key."""

Target: TypeAlias = str | Queue | Exchange | RoutingKey
"""What a person names: a queue, an exchange (with any key), or an exchange with a key."""

Targets: TypeAlias = Target | Sequence[Target] | None


class Send(Generic[T_co]):
    """An output with a target or properties of its own: ``yield Send(visit, to="errors")``.

    In an annotation it may have the type of its value: ``Iterator[Score | Send[Visit]]``. Then a
    flow compares that with what the stages take that read the routes.

    *to* is one of the targets that the stage names, in ``writes`` or in ``routes``; without it the
    value goes to each target in ``writes``, as a plain output. *key* is the routing key for an
    exchange. *priority* is from 0 to 255, for a queue that has priorities. A queue gets the value
    *delay* seconds later (up to seven days, within 5 % or 100 ms). If no worker begins with it
    within *expires* seconds, it is dead-lettered. *headers* are AMQP headers.

    Raises:
        ValueError: *priority*, *delay*, *expires* or a header cannot be sent, or an exchange cannot
            be sent to later.
    """

    __slots__ = ("headers", "key", "options", "to", "value")

    def __init__(
        self,
        value: T_co = None,  # type: ignore[assignment]  # without a value the type is Any
        to: Target | None = None,
        *,
        key: str | None = None,
        priority: int | None = None,
        delay: float | None = None,
        expires: float | None = None,
        headers: Mapping[str, Any] | None = None,
    ) -> None:
        self.value = value
        self.to = to
        self.key = key
        self.options = SendOptions.checked(priority, delay, expires)
        self.headers = _checked_headers(headers)
        if isinstance(to, (Exchange, RoutingKey)):
            check_can_wait(to, self.options)

    def __repr__(self) -> str:
        """Return where it goes; the value is never shown without a request for it."""
        where = "" if self.to is None else f" to {_shown(self.to)}"
        return f"<Send{where}{'' if self.key is None else f' with key {self.key!r}'}>"


class SentMessage(NamedTuple):
    """A message that a handler sends to *target*: with a priority, or later.

    *is_own* says that it sends it itself, by `mousetrap.send`, and does not return it.
    """

    message: Message
    target: Address
    options: SendOptions = DEFAULT
    is_own: bool = False


class OutputTargets:
    """The targets of one stage: *writes* for plain outputs, and *routes* for a `Send` only.

    `given` is *writes* as its stage was defined: None, one target, or a tuple. The ids of the
    outputs to the first target are those of a stage that has no other target, so a target can be
    added at the end without changing any id.

    Raises:
        SettingsError: something is not a target, or is named twice.
    """

    def __init__(self, writes: Targets = None, routes: Targets = None) -> None:
        self.writes = tuple(_checked(each, "writes") for each in _many(writes))
        self.routes = tuple(_checked(each, "routes") for each in _many(routes))
        for names in (self.writes, self.routes):
            if twice := [each for each, number in Counter(names).items() if number > 1]:
                raise SettingsError(f"{_shown(twice[0])} is named twice: name each target once")
        for each in self.writes:
            if isinstance(each, Exchange) and each.type != "fanout":
                raise SettingsError(
                    f"writes names the exchange {each.name!r} without a routing key: give "
                    f"{each.name}[key], with a text or a function of the value"
                )
        self.given: Any = None if writes is None else self.writes
        if len(self.writes) == 1 and not isinstance(writes, (list, tuple)):
            [self.given] = self.writes
        self.named = {  # the queues that were given as a `Queue`, by name
            each.name: each for each in (*_many(writes), *_many(routes)) if isinstance(each, Queue)
        }
        self.plain = ""  # the queue of plain outputs, if they go to one queue and nowhere else
        if len(self.writes) == 1 and isinstance(only := self.writes[0], str):
            self.plain = only
        self.is_plain = bool(self.plain) or not self.writes
        self.joins: Sequence[Any] = ()  # the `JoinPoint`s that name the stage

    @property
    def all(self) -> tuple[str | Exchange | RoutingKey, ...]:
        """All targets, each once, those of *writes* first."""
        return tuple(dict.fromkeys((*self.writes, *self.routes)))

    @property
    def names(self) -> str:
        """All targets, as people read them: ``visits, archive``."""
        return ", ".join(map(str, self.all))

    @property
    def queues(self) -> list[str]:
        """The plain names of the queues among the targets."""
        return [each for each in self.all if isinstance(each, str)]

    def as_queues(self) -> list[Queue | str]:
        """Return the queues among the targets, each as a `Queue` if it was given as one."""
        return [self.named.get(name, name) for name in self.queues]

    def with_known(self, known: Mapping[str, Queue]) -> tuple[Any, Any]:
        """Return *writes* and *routes* as they were given, with each *known* queue as a `Queue`."""
        queues = {**self.named, **known}
        writes = tuple([queues.get(each, each) for each in self.writes])  # type: ignore[arg-type]
        routes = tuple([queues.get(each, each) for each in self.routes])  # type: ignore[arg-type]
        return (writes if isinstance(self.given, tuple) or not writes else writes[0]), routes

    @property
    def exchanges(self) -> list[Exchange]:
        """The exchanges among the targets, each once."""
        found = [_exchange_of(each) for each in self.all if not isinstance(each, str)]
        return list(dict.fromkeys(found))

    def outputs(self, values: Iterable[Any], parent: Message, stage: str) -> Iterator[SentMessage]:
        """Yield the messages for *values*, which *stage* made of *parent*, encoded.

        Raises:
            SettingsError: a `Send` names no target of the stage; the text names those that are.
            TypeError, ValueError: a value cannot be JSON.
            Exception: whatever the function of a routing key raises.
        """
        numbers: Counter[str] = Counter()
        for value in values:
            send = value if isinstance(value, Send) else _PLAIN
            data = send.value if send is value else value
            if send.to is None:
                yield from self._copies(data, send, parent, stage, numbers[""])
                numbers[""] += 1
            else:
                address = self.address(send, stage)
                stem = f"{stage}{_SENT}{_text(address)}"
                id = child_id(parent.id, stem, numbers[stem])
                numbers[stem] += 1
                yield _output(Message(data).body, id, address, send, parent)

    def address(self, send: Send, stage: str) -> Address:
        """Return where *send*, which has a target, goes.

        Raises:
            SettingsError: that is no target of the stage, or an exchange needs a key.
        """
        to = send.to.name if isinstance(send.to, Queue) else send.to
        known = self.all
        if isinstance(to, str):
            if to in known:
                return to
        elif isinstance(to, RoutingKey) and send.key is None:
            resolved = to.of(send.value)
            if to in known or resolved in known or to.exchange in known:
                return resolved
        elif isinstance(to, (Exchange, RoutingKey)):
            exchange = _exchange_of(to)
            if send.key is not None:
                resolved = RoutingKey(exchange, send.key)
                if exchange in known or resolved in known:
                    return resolved
            elif exchange.type == "fanout" and exchange in known:
                return RoutingKey(exchange, "")
            elif len(named := [e for e in known if _is_key_of(exchange, e)]) == 1:
                [only] = named
                assert isinstance(only, RoutingKey)
                return only.of(send.value)
            elif exchange in known:
                raise SettingsError(
                    f"{stage} sends to the exchange {exchange.name!r} without a routing key: give "
                    f"Send(..., key=...)"
                )
        named_ones = ", ".join(map(_shown, known)) or "none"
        key = "" if send.key is None else f" with the key {send.key!r}"
        raise SettingsError(
            f"{stage} sends to {_shown(to)}{key}, which is none of its targets (they are: "
            f"{named_ones}): name it in routes=[...] of the stage"
        )

    def _copies(
        self, data: Any, send: Send, parent: Message, stage: str, number: int
    ) -> Iterator[SentMessage]:
        """Yield one message for each target in `writes`: the *number*-th plain output."""
        if not self.writes and send is not _PLAIN:
            raise SettingsError(
                f"{stage} writes to no target: give Send(..., to=...), or name one in writes"
            )
        body = Message(data).body
        for position, target in enumerate(self.writes):
            address = _resolved(target, data)
            stem = f"{stage}{_COPY}{_text(address)}" if position else stage
            yield _output(body, child_id(parent.id, stem, number), address, send, parent)

    def __str__(self) -> str:
        """Return the end of a path: `` → visits, archive``; nothing without targets."""
        return f" → {self.names}" if self.all else ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OutputTargets) and (self.writes, self.routes) == (
            other.writes, other.routes
        )  # fmt: skip

    def __hash__(self) -> int:
        return hash((self.writes, self.routes))


def address_of(target: Target) -> Address:
    """Return where a message without a stage is sent that a person sends to *target*.

    Raises:
        SettingsError: it is an exchange without a text as the key.
    """
    address = target.name if isinstance(target, Queue) else target
    if isinstance(address, Exchange) and address.type == "fanout":
        return address[""]
    if isinstance(address, Exchange) or (isinstance(address, RoutingKey) and not address.is_fixed):
        name = address.name if isinstance(address, Exchange) else address.exchange.name
        raise SettingsError(f"say with which key: send({name}['...'], data)")
    return address


def check_can_wait(address: Exchange | Address, options: SendOptions) -> None:
    """Refuse a delay for an exchange.

    Raises:
        SettingsError: *address* is one; the text says what to do instead.
    """
    if options.delay and not isinstance(address, str):
        raise SettingsError(
            f"a message cannot be sent to the exchange {address} later: only queues have delay "
            f"queues. Send it later to a queue whose stage writes to the exchange"
        )


def _many(targets: Targets) -> Sequence[Any]:
    if targets is None:
        return ()
    return targets if isinstance(targets, (list, tuple)) else (targets,)


def _checked(target: Any, argument: str) -> str | Exchange | RoutingKey:
    if isinstance(target, str):
        return check_queue_name(target)
    if isinstance(target, Queue):
        return target.name
    if isinstance(target, (Exchange, RoutingKey)):
        return target
    raise SettingsError(
        f"{argument} names {target!r}, which is no target: give the name of a queue, a Queue, or "
        f"an exchange with a routing key, as in orders[key]"
    )


def _exchange_of(target: Exchange | RoutingKey) -> Exchange:
    return target if isinstance(target, Exchange) else target.exchange


def _is_key_of(exchange: Exchange, target: object) -> bool:
    return isinstance(target, RoutingKey) and target.exchange == exchange


def _resolved(target: str | Exchange | RoutingKey, value: Any) -> Address:
    if isinstance(target, str):
        return target
    return RoutingKey(target, "") if isinstance(target, Exchange) else target.of(value)


def _output(body: bytes, id: str, address: Address, send: Send, parent: Message) -> SentMessage:
    message = Message(
        body=body, id=id, parent=parent.id, job=parent.job, past_retries=parent.retries,
        headers=send.options.headers(send.headers),
    )  # fmt: skip
    if send.options.delay:
        check_can_wait(address, send.options)
    return SentMessage(message, address, send.options)


def _text(address: Address) -> str:
    if isinstance(address, str):
        return address
    return f"{address.exchange.name}{_KEY}{address.key}"


def _shown(target: Any) -> str:
    if isinstance(target, Queue):
        return repr(target.name)
    return str(target) if isinstance(target, (Exchange, RoutingKey)) else repr(target)


def _checked_headers(headers: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not headers:
        return None
    for name in headers:
        if not isinstance(name, str) or name.startswith("mousetrap-"):
            raise ValueError(f"header {name!r}: use a text that does not begin with mousetrap-")
        if name in ROUTING_HEADERS:
            raise ValueError(
                f"header {name!r} sends a message to further queues, which nothing here would "
                f"count: name several targets instead"
            )
    if name := unsendable(headers):
        raise ValueError(f"AMQP cannot encode the value of header {name!r}: give a text instead")
    return dict(headers)


_PLAIN = Send()  # the properties of a plain output
NO_TARGETS = OutputTargets()
