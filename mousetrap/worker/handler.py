"""How a worker calls a function: the argument that it passes, and the outputs that it makes.

The rules are the same for functions and coroutine functions. The first parameter is the message's
data, decoded to the annotated type; if it is annotated `Message`, it is the message itself. For an
empty body the function is called without an argument; without a default for it, the message is
dead-lettered. A function without any parameter is called for each message, and reads no data.

A returned value is one output, each value of a generator or another iterator is one output, and a
returned None is no output. A `mousetrap.Send` is an output with a target of its own. What has to be
awaited is awaited, whatever the function looked like before it was called.
Prototyped in ``notebooks/03_worker.ipynb``.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import inspect
import logging
from collections.abc import Callable, Sequence
from types import AsyncGeneratorType, GeneratorType
from typing import Any

from mousetrap.errors import UndecodableMessage
from mousetrap.model.batch import Batch
from mousetrap.model.decoding import decode
from mousetrap.model.join_groups import Join
from mousetrap.model.message import Message
from mousetrap.model.one_or_many import outputs_of
from mousetrap.model.targets import Send
from mousetrap.worker.handling import Handling, current_handling
from mousetrap.worker.signature import (
    DataParameter,
    data_parameter,
    is_async,
    output_type,
    returned_type,
    returns_a_value,
)

log = logging.getLogger("mousetrap.worker.handler")


class Handler:
    """A function that handles messages.

    `name` (default: the function's) determines the ids of the outputs, together with the message's
    id: another name gives them other ids. `is_async` says that it is called on an event loop: it
    is an ``async def`` (also as a method, as ``__call__`` or inside `functools.partial`). Any
    other function is called on a thread. If it returns something to await, that is awaited there,
    on an event loop of its own for each message.

    Raises:
        TypeError: the function cannot be called with the message's data and nothing else, its
            parameters cannot be read, no JSON can become the type of the first one, or it is a
            stage, whose queues and options would be lost.
    """

    joins: Join | None = None  # of a `mousetrap.worker.join_worker.JoinHandler`
    batch: Batch | None = None  # of a `mousetrap.worker.batch_handler.BatchHandler`

    def __init__(
        self, function: Callable[..., Any], name: str | None = None, carry: Sequence[str] = ()
    ) -> None:
        if isinstance(getattr(function, "handler", None), Handler):
            raise TypeError(
                f"{getattr(function, 'name', function)} is a stage with a queue and options of its "
                f"own: start it with .worker(), .run() or consume, or give its .function"
            )
        self.function = function
        self.carry = carry
        self.name: str = name or str(getattr(function, "__name__", type(function).__name__))
        parameter = self._data_parameter()
        self.is_async = is_async(function)
        self.accepts: Any = Any if parameter is None else parameter.type
        self._takes_data = parameter is not None
        self._needs_data = parameter is not None and parameter.is_required
        self._has_warned = False

    @classmethod
    def of(cls, function: Callable[..., Any] | Handler) -> Handler:
        """Return a handler of *function*, which may be one already."""
        return function if isinstance(function, Handler) else cls(function)

    def _data_parameter(self) -> DataParameter | None:
        return data_parameter(self.function, self.name)

    @property
    def returned_type(self) -> Any:
        """The type of what comes of one message, as the function's annotation says; or Any."""
        return returned_type(self.function, of_batch=self.batch is not None)

    @property
    def output_type(self) -> Any:
        """The type of each value that is sent on; Any if it is not certain."""
        return output_type(self.function, of_batch=self.batch is not None)

    @property
    def returns_a_value(self) -> bool | None:
        """Whether each message has an output, unless it fails; None if it is not known."""
        return returns_a_value(self.function, of_batch=self.batch is not None)

    def check_replaces(self, old: Handler) -> None:
        """Raise an error if a worker that was started with *old* cannot go on with this handler.

        Raises:
            TypeError: one of them is a coroutine function, or handles batches, and the other not.
        """
        for kind, is_new, was_old in (
            ("coroutine functions", self.is_async, old.is_async),
            ("functions of batches", self.batch is not None, old.batch is not None),
            ("functions of joins", self.joins is not None, old.joins is not None),
        ):
            if is_new is not was_old:
                raise TypeError(
                    f"{self.name} and {old.name} are not both plain functions, nor both {kind}: "
                    f"stop this worker and start another"
                )

    def replace(self, function: Callable[..., Any]) -> Handler:
        """Return a handler that calls *function*, which wraps this one's, with the same data."""
        new = copy.copy(self)
        new.function = function
        new.is_async = is_async(function)
        return new

    def call(self, message: Message, handling: Handling | None = None) -> list[Message]:
        """Call the function with *message* and return the outputs; see `arguments`, `outputs`.

        Threads: any without a running event loop, several at a time.
        """
        result = self.function(*self.arguments(message))
        if must_be_awaited(result):
            result = finish_here(result)
        return self.outputs(result, message, handling)

    async def call_async(self, message: Message, handling: Handling | None = None) -> list[Message]:
        """Call the function with *message* on this event loop; see `call`."""
        result = self.function(*self.arguments(message))
        if must_be_awaited(result):
            result = await finished(result)
        return self.outputs(result, message, handling)

    def arguments(self, message: Message) -> tuple[Any, ...]:
        """Return the arguments to call the function with for *message*.

        Raises:
            UndecodableMessage: the body is not JSON, not of the annotated type, or empty where
                the function needs data.
        """
        if self.accepts is Message:
            return (message,)
        content = message.body if message.content_encoding is None else message.content
        if not content:
            if self._needs_data:
                raise UndecodableMessage(f"empty body, but {self.name} needs data", 0)
            return ()
        if not self._takes_data:
            self._warn_of_data()
            return ()
        return (decode(content, self.accepts),)

    def outputs(
        self, result: Any, message: Message, handling: Handling | None = None
    ) -> list[Message]:
        """Return the outputs in *result*, encoded; the next attempt gives them the same ids.

        If the *handling* has several targets, or an output is a `Send`, the outputs are added to
        it, each with its target, and the list is empty.

        An iterator (a generator, mostly) is exhausted before any output is sent: if it raises an
        error, none is sent. Any other value, a list too, is one output.

        Raises:
            TypeError, ValueError: a value cannot be JSON (see `mousetrap.model.encoding.encode`).
            SettingsError: a `Send` names no target of the stage.
        """
        values = tuple(outputs_of(result))
        if handling is not None and (not handling.targets.is_plain or Send in map(type, values)):
            handling.add_returned(values)
            return []
        outputs = [message.child(value, self.name, n) for n, value in enumerate(values)]
        for output in outputs:
            output.body  # noqa: B018 -- encodes now, so that an error counts as the handler's
        return outputs

    def _warn_of_data(self) -> None:
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "%s has no parameter: it is called for each message, and the data in them is not "
                "read; to get it, add a parameter", self.name,
            )  # fmt: skip

    def __repr__(self) -> str:
        accepts = getattr(self.accepts, "__name__", self.accepts)
        return f"<Handler {self.name}({accepts}){' async' if self.is_async else ''}>"


def must_be_awaited(result: Any) -> bool:
    """Return whether *result* is something to await, or an asynchronous generator."""
    kind = type(result)
    return (
        hasattr(kind, "__await__")
        or kind is AsyncGeneratorType
        or (kind is GeneratorType and inspect.isawaitable(result))
    )


async def finished(result: Any) -> Any:
    """Await *result*, and what it gives; return an asynchronous generator as a plain one."""
    while must_be_awaited(result):
        if type(result) is AsyncGeneratorType:
            values = [value async for value in result]
            return (value for value in values)
        result = await result
    return result


def finish_here(result: Any) -> Any:
    """Await *result* on a new event loop: of this thread, or of another if this one has a loop."""

    async def finish() -> Any:
        if (handling := current_handling.get(None)) is not None:
            handling.follow_task()
        return await finished(result)

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(finish())
    from concurrent.futures import (
        ThreadPoolExecutor,
    )  # late: only a cell that calls a stage is here

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(contextvars.copy_context().run, asyncio.run, finish()).result()
