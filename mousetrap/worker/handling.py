"""The messages that one handling of a message sends, other than to the one queue of its stage.

These are the outputs of a stage with several targets, each `Send`, and what a handler sends itself,
by `mousetrap.send`. All are outputs of that message: they wait here until the handler returns, and
are dropped if it raises. The ids of what the handler sends itself are computed from the parent's
id, the stage, the target queue and the position among the messages to that queue, so a second
handling of the same message gives the same ids. Threads and pool tasks that a handler starts belong
to its handling.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextvars import ContextVar

from mousetrap import settings as settings_module
from mousetrap.errors import MousetrapError, SettingsError
from mousetrap.model.delays import DEFAULT, SendOptions
from mousetrap.model.headers import MAX_FOREIGN_HEADERS, carried, fit, without_failure_headers
from mousetrap.model.message import Message, child_id
from mousetrap.model.targets import NO_TARGETS, Address, OutputTargets, SentMessage
from mousetrap.runtime import thread_context, threads
from mousetrap.settings import Settings

current_handling: ContextVar[Handling] = ContextVar("mousetrap.handling")
"""What the code of a handler runs in; threads inherit it (see `inherit_in_threads`)."""

_PLACE = ("host", "port", "vhost", "namespace")  # the settings that say which queue a name means
_lock = threads.Lock()  # guards what each handling has sent: taken once per `send`, and briefly


class Handling:
    """One handling of *message* by the stage *name*, which has *targets*.

    *settings* are those of its worker, if any.

    Threads: `add` and `end` from any, `add_returned` from one.
    """

    __slots__ = (
        "_numbers", "_returned", "_sent", "_task", "_thread", "is_open", "message", "name",
        "settings", "targets",
    )  # fmt: skip

    def __init__(
        self,
        message: Message,
        name: str,
        settings: Settings | None = None,
        targets: OutputTargets = NO_TARGETS,
    ) -> None:
        self.message = message
        self.name = name
        self.settings = settings
        self.targets = targets
        self.is_open = True
        self._returned: Sequence[SentMessage] = ()
        self._sent: list[SentMessage] | None = None
        self._numbers: Counter[str] | None = None
        self._thread = threads.get_ident()
        self._task: asyncio.Task[None] | None = None  # of a coroutine function

    def follow_task(self) -> None:
        """Remember the coroutine that calls the handler, and its thread."""
        self._thread = threads.get_ident()
        self._task = asyncio.current_task()

    def includes(self, settings: Settings | None) -> bool:
        """Return whether a message sent with *settings* is an output of this handling.

        It is if they are not given, or if they mean the queues of the handler's worker.
        """
        ours = self.settings
        return settings is None or (
            ours is not None
            and self.is_open
            and all(getattr(settings, each) == getattr(ours, each) for each in _PLACE)
        )

    def add_returned(self, values: Sequence[object]) -> None:
        """Set the outputs that the handler returned, each with its target.

        Raises what `OutputTargets.outputs` raises.
        """
        self._returned = tuple(self.targets.outputs(values, self.message, self.name))

    def keep_returned(self, values: Sequence[object]) -> None:
        """Keep what the handler returned, if it is needed for an answer."""

    def add(
        self, values: Sequence[object], target: Address, options: SendOptions = DEFAULT
    ) -> list[Message]:
        """Add *values* as outputs to *target*, all or none, and return them as messages.

        Of a `Message` the body and the headers are sent; it gets an id like the other outputs.

        Raises:
            TypeError, ValueError: a value cannot be JSON.
            SettingsError: they are sent later, to a queue that is no target of the stage.
            MousetrapError: the handling has ended, or this is another process.
        """
        if options.delay and target not in self.targets.queues:
            raise SettingsError(
                f"{self.name} sends to {target!r} later, which it does not name: if there were no "
                f"such queue, nobody would learn it. Name it in routes=[...] of the stage"
            )
        sources = [each if isinstance(each, Message) else Message(each) for each in values]
        for each in sources:
            each.body  # noqa: B018 -- encodes now, so that an error adds none of them
        # The order of concurrent sends may differ the next time, and ids must not change places:
        # a sink would take one message for another. So there the body is part of the id.
        is_in_order = self._is_in_order()
        with _lock:
            self._check()
            if self._sent is None or self._numbers is None:
                self._sent, self._numbers = [], Counter()
            messages = []
            for each in sources:
                stem = f"{self.name}>{target}"
                if not is_in_order:
                    stem += f"#{hashlib.sha1(each.body, usedforsecurity=False).hexdigest()}"
                id = child_id(self.message.id, stem, self._numbers[stem])
                self._numbers[stem] += 1
                messages.append(self._output(each, id))
            self._sent += [SentMessage(each, target, options, True) for each in messages]
        return messages

    def end(self) -> Sequence[SentMessage]:
        """Accept no more messages, and return those that were added: the returned ones first."""
        with _lock:
            self.is_open = False
            sent = self._sent or ()
        return (*self._returned, *sent) if self._returned else sent

    def _check(self) -> None:
        if not self.is_open:
            raise MousetrapError(
                f"this send belongs to message {self.message.short_id}, whose handling by "
                f"{self.name} has ended: nothing was sent. Join threads and tasks before the "
                f"handler returns, or give send(..., settings=...) to send outside the handling"
            )

    def _is_in_order(self) -> bool:
        if threads.get_ident() != self._thread:
            return False
        return self._task is None or self._task is current_task()

    def _output(self, source: Message, id: str) -> Message:
        parent = self.message
        return Message(
            body=source.body,
            id=id,
            parent=parent.id,
            job=parent.job,
            past_retries=parent.retries,
            headers=without_failure_headers(source.headers),
            correlation_id=source.correlation_id,
            content_encoding=source.content_encoding,
        )


def pass_on(message: Message, carry: Sequence[str], outputs: Iterable[Message]) -> None:
    """Give the *outputs* of *message* its correlation id, and its headers for traces and *carry*.

    What an output has itself stays.
    """
    if message.correlation_id is None and not message.headers:
        return
    headers = carried(message.headers, carry)
    for each in outputs:
        if each.correlation_id is None:
            each.correlation_id = message.correlation_id
        if headers:
            each.headers = fit({**headers, **each.headers}, MAX_FOREIGN_HEADERS)


class _HandlingOfAnotherProcess(Handling):
    """Takes the place of a handling in a process that its handler forked."""

    __slots__ = ()

    def _check(self) -> None:
        raise MousetrapError(
            f"this process was forked by the handler {self.name}, which cannot get messages from "
            f"it: nothing was sent. Return the values to the handler and send them there, or give "
            f"send(..., settings=...) to send outside the handling"
        )


def inherit_in_threads() -> None:
    """Have threads and pool tasks that a handler starts belong to its handling; safe to repeat."""
    thread_context.inherit(current_handling)


def current_task() -> asyncio.Task[None] | None:
    """Return the task that runs now in this thread, if any."""
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop runs in this thread
        return None


def _in_forked_child() -> None:
    global _lock
    _lock = threads.Lock()  # another thread may have held it
    if (handling := current_handling.get(None)) is not None:
        current_handling.set(
            _HandlingOfAnotherProcess(handling.message, handling.name, handling.settings)
        )


def _settings_of_handler() -> Settings | None:
    handling = current_handling.get(None)
    return None if handling is None else handling.settings


if hasattr(os, "register_at_fork"):  # there is no fork on Windows
    os.register_at_fork(after_in_child=_in_forked_child)
settings_module.inside_handler = _settings_of_handler
