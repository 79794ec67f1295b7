"""Declares on each new channel what a connection needs, and learns from refusals how.

Some queues and exchanges are declared only if they are missing, or must exist (see
`mousetrap.model.topology.How`). So the client asks for them, on the same channel and without
waiting for an answer: if all exist, that costs no round trip. If the broker refuses something, it
closes the channel and names what it refused. The next channel is opened at once, and does that one
in another way, until nothing is refused. Prototyped in ``notebooks/10_their_queues.ipynb``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from shlex import quote
from typing import Any, Literal, TypeAlias

from pika.channel import Channel
from pika.exceptions import ChannelClosedByBroker

from mousetrap.amqp.error_translation import declare
from mousetrap.amqp.new_queues import is_quorum
from mousetrap.display.safe_text import repr_of, safe
from mousetrap.errors import AccessRefused, MousetrapError, QueueMissing
from mousetrap.model.topology import AnyDeclaration, Binding, Declaration, ExchangeDeclaration, How
from mousetrap.settings import Settings

Way: TypeAlias = Literal["declare", "ask", "skip"]

_FIRST: dict[How, Way] = {"now": "declare", "compare": "declare", "missing": "ask", "exists": "ask"}
_NAMED = re.compile(r"(queue|exchange) '(.*?)' in vhost '", re.DOTALL)

log = logging.getLogger("mousetrap.amqp.declarer")


class Declarer:
    """What one connection declares: queues, exchanges and bindings, in the order of `add`.

    Threads: the I/O thread; the attributes can be read from any.
    """

    def __init__(self, settings: Settings) -> None:
        self.absent: set[str] = set()  # optional exchanges that do not exist
        self.is_restricted = False  # the user may not declare queues
        self.missing: list[str] = []  # what must exist and does not: "queue 'jobs'"
        self.old: set[str] = set()  # queues of which the session wants to know if they are new ones
        self._settings = settings
        self._declarations: list[AnyDeclaration] = []
        self._later: list[Declaration] = []
        self._hidden: list[str] = []  # what the user may not even ask for
        self._denied: set[tuple[str, str]] = set()  # what the user may not declare
        self._ways: dict[tuple[str, str], Way] = {}  # learned from refusals, by kind and name

    def add(self, declarations: Iterable[AnyDeclaration]) -> None:
        """Have *declarations* made on each new channel."""
        for each in declarations:
            if each not in self._declarations:
                self._declarations.append(each)

    def add_later(self, declarations: Iterable[Declaration]) -> None:
        """Have queues checked that `QueuesOnDemand` declares, if the user may not declare them."""
        self._later = list(declarations)
        self.add(each for each in self._later if each.how == "exists")

    def may_be_quorum(self, queue: str) -> bool:
        """Return whether this queue is of the type quorum, or is used without knowing its type."""
        found = self._of("queue", queue)
        if not isinstance(found, Declaration) or self._way(found) != "declare":
            return True
        return is_quorum(found)

    def begin(
        self,
        channel: Channel,
        then: Callable[[], object],
        fail: Callable[[MousetrapError], object],
    ) -> None:
        """Call *then*, which sets up *channel*; if something is missing, *fail* with all of it."""
        if not self.missing:
            then()
            return
        self.declare(channel)  # what else is missing closes the channel before the answer

        def on_answer(_: Any) -> None:
            fail(self.error)

        channel.basic_qos(prefetch_count=1, callback=on_answer)

    def quorum_queues(self, chosen: Iterable[AnyDeclaration] | None = None) -> list[str]:
        """Return the names of the quorum queues among *chosen* (None: all) that are declared."""
        return [
            each.name
            for each in (self._declarations if chosen is None else chosen)
            if isinstance(each, Declaration) and is_quorum(each) and self._way(each) == "declare"
        ]

    def declare(self, channel: Channel, start: int = 0) -> int:
        """Write all declarations from number *start* on to *channel*; return how many there are."""
        for each in self._declarations[start:]:
            way = self._way(each)
            if isinstance(each, Binding) and self.missing:
                continue  # it may be of something that is missing
            if way == "ask":
                declare(channel, each, passive=True)
            elif way == "declare":
                if isinstance(each, Declaration) and each.name in self.old:
                    declare(channel, each, passive=True)
                declare(channel, each)
        return len(self._declarations)

    def add_now(self, declarations: Iterable[AnyDeclaration], channel: Channel | None) -> None:
        """Do what `add` does, and declare them on *channel*, if there is one, which is in use.

        They are new, or were deleted: a queue that is declared only if it is missing is declared.
        An exchange is not: that of another program may have arguments that are not known here.
        """
        for each in declarations:
            self.add([each])
            is_missing = isinstance(each, Declaration) and each.how == "missing"
            is_allowed = is_missing and not self.is_restricted
            if channel is not None and (self._way(each) == "declare" or is_allowed):
                declare(channel, each)

    @property
    def declares_later(self) -> bool:
        """Whether the queues of `add_later` are declared when they are needed."""
        return not self.is_restricted and all(each.how == "now" for each in self._later)

    def is_declared(self, queue: str) -> bool:
        """Return whether the queue with this name on the wire is declared, and not only used."""
        found = self._of("queue", queue)
        return found is not None and self._way(found) == "declare"

    def learn(self, reason: BaseException, *, is_setup: bool) -> bool:
        """Learn from *reason*, which closed a channel; return whether the next one may succeed.

        *is_setup*: the declarations were just made on it.
        """
        if not isinstance(reason, ChannelClosedByBroker):
            return False
        code, text = reason.reply_code, reason.reply_text
        if not (found := _NAMED.search(text)) or not (each := self._of(found[1], found[2])):
            return False
        key, way = _key(each), self._way(each)
        if code == 404 and way == "declare" and each.name in self.old and "no queue" in text:
            self.old.discard(each.name)
        elif code == 404 and way == "ask" and f"no {found[0]}" in text:
            self._not_found(each)
        elif code == 403 and not is_setup and _is_optional(each):
            self._do_without(each.name, "it needs the permission to write to it")
        elif not is_setup or " read access to" in text or " write access to" in text:
            return False  # it is not about a declaration
        elif code == 403 and way == "declare" and each.how != "now":
            self._forbidden(each)
        elif code == 403 and way == "ask":
            # The user has no permission for it at all, and so may not know whether it exists: if it
            # is needed, the broker refuses that as well.
            self._ways[key] = "skip"
            self._hidden.append(f"{key[0]} {key[1]!r}")
        elif code == 406 and way == "declare" and each.how == "missing":
            self._ways[key] = "ask"  # another client has just declared it
        else:
            return False
        return True

    @property
    def error(self) -> QueueMissing:
        """The error that names all that is missing."""
        is_denied = self.is_restricted or bool(self._denied)
        return missing_error(self._settings, self.missing, is_denied=is_denied)

    def explained(self, error: MousetrapError) -> MousetrapError:
        """Return *error*, which ends the connection, with what is known about permissions."""
        topology = self._settings.topology
        text = str(error)
        is_own = topology.is_own and f"'{topology.wire_name('')}" in text
        if not isinstance(error, AccessRefused):
            return error
        if not is_own:
            return AccessRefused(text + self._about_hidden) if self._hidden else error
        prefix = topology.namespace.rpartition("-")[0] or topology.namespace
        pattern = quote("^" + prefix.replace(".", r"\.") + "-")
        return AccessRefused(
            f"runs, checks and tests make queues of their own, here {topology.wire_name('')}*, and "
            f"user {self._settings.user!r} may not declare them. `mousetrap work`, consume and "
            f"send need no such permission. For a run, ask an administrator to let this user "
            f"configure, write and read {pattern} (rabbitmqctl set_permissions), or another "
            f"prefix, and set MOUSETRAP_NAMESPACE to it, without the hyphen. The broker said: "
            f"{text.partition(';')[0]}"
        )

    @property
    def _about_hidden(self) -> str:
        lines = "".join(f"\n  {safe(name)}" for name in sorted(self._hidden))
        return (
            f"\nUser {self._settings.user!r} has neither read nor write permission for these, so "
            f"the broker does not say whether they exist:{lines}\n`mousetrap topology STAGE ...` "
            f"prints the permissions that a flow needs"
        )

    def _of(self, kind: str, name: str) -> Declaration | ExchangeDeclaration | None:
        for each in self._declarations:
            if not isinstance(each, Binding) and _key(each) == (kind, name):
                return each
        return None

    def _way(self, each: AnyDeclaration) -> Way:
        if isinstance(each, Binding):
            return "declare"
        return self._ways.get(_key(each), _FIRST[each.how])

    def _not_found(self, each: Declaration | ExchangeDeclaration) -> None:
        kind, name = _key(each)
        self._ways[kind, name] = "skip"
        if _is_optional(each):
            self._do_without(name, "it does not exist")
        elif each.how == "missing" and not self.is_restricted and (kind, name) not in self._denied:
            self._ways[kind, name] = "declare"
        else:
            self.missing.append(f"{kind} {name!r}")

    def _forbidden(self, each: Declaration | ExchangeDeclaration) -> None:
        self._ways[_key(each)] = "ask"
        self._denied.add(_key(each))
        if isinstance(each, Declaration) and not self.is_restricted:
            self.is_restricted = True
            self.add(self._later)
            self._ways.update({_key(each): "ask" for each in self._later})

    def _do_without(self, exchange: str, what: str) -> None:
        self.absent.add(exchange)
        log.warning(
            "user %s cannot use the exchange %s (%s): the outcomes of messages are not published, "
            "so other processes cannot show them. Everything else works",
            safe(repr_of(self._settings.user)), safe(repr_of(exchange)), what,
        )  # fmt: skip


def missing_error(settings: Settings, missing: Sequence[str], *, is_denied: bool) -> QueueMissing:
    """Return the error for what is *missing* (``queue 'jobs'``) and is not declared.

    *is_denied*: the user may not declare it.
    """
    if is_denied:
        why = f"user {settings.user!r} may not declare them"
    elif settings.declare == "never":
        why = "MOUSETRAP_DECLARE=never forbids to declare them"
    else:
        why = "with declare=False they are not declared"
    verb = "does" if len(missing) == 1 else "do"
    return QueueMissing(
        f"{len(missing)} of the queues and exchanges that are needed {verb} not exist on "
        f"{settings.url}, and {why}:\n"
        + "".join(f"  {safe(name)}\n" for name in sorted(missing))
        + "Let an administrator of the broker make them: `mousetrap topology STAGE ...` prints a "
        "definitions file with all that a flow needs. Or correct the names, RABBITMQ_VHOST or "
        "MOUSETRAP_NAMESPACE"
    )


def _key(each: Declaration | ExchangeDeclaration) -> tuple[str, str]:
    return ("queue" if isinstance(each, Declaration) else "exchange"), each.name


def _is_optional(each: Declaration | ExchangeDeclaration) -> bool:
    return isinstance(each, ExchangeDeclaration) and each.is_optional
