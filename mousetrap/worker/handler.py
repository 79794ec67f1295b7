"""How a worker calls a function: the argument that it passes, and the outputs that it makes.

The rules are the same for functions and coroutine functions. The first parameter is the message's
data, decoded to the annotated type; if it is annotated `Message`, it is the message itself. For an
empty body the function is called without an argument; without a default for it, the message is
dead-lettered. A returned value is one output, each value of a generator is one output, and a
returned None is no output. Prototyped in ``notebooks/03_worker.ipynb``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from mousetrap.errors import UndecodableMessage
from mousetrap.model.decoding import decode
from mousetrap.model.message import Message


class Handler:
    """A function that handles messages.

    `name` (default: the function's) determines the ids of the outputs, together with the message's
    id: another name gives them other ids.

    Raises:
        TypeError: the function needs more than the message's data: a second argument, or one that
            can be passed by keyword only.
    """

    def __init__(self, function: Callable[..., Any], name: str | None = None) -> None:
        self.function = function
        self.name: str = name or str(getattr(function, "__name__", type(function).__name__))
        self.is_async = inspect.iscoroutinefunction(function)
        self.accepts: Any = Any
        parameters = list(inspect.signature(function).parameters.values())
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD,
                      inspect.Parameter.VAR_POSITIONAL)  # fmt: skip
        needed = [
            each.name for each in parameters
            if each.default is each.empty
            and each.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        ]  # fmt: skip
        self._takes_data = bool(parameters) and parameters[0].kind in positional
        self._needs_data = bool(needed)
        if len(needed) > 1 or (needed and (not self._takes_data or needed != [parameters[0].name])):
            raise TypeError(
                f"{self.name} cannot handle messages: it is called with one argument, the "
                f"message's data; give {', '.join(needed[self._takes_data :])} a default"
            )
        if self._takes_data:
            self.accepts = _hints(function).get(parameters[0].name, Any)

    def arguments(self, message: Message) -> tuple[Any, ...]:
        """Return the arguments to call the function with for *message*.

        Raises:
            UndecodableMessage: the body is not JSON, not of the annotated type, or empty where
                the function needs data.
        """
        if self.accepts is Message:
            return (message,)
        if not message.body:
            if self._needs_data:
                raise UndecodableMessage(f"empty body, but {self.name} needs data", 0)
            return ()
        if not self._takes_data:
            return ()
        return (decode(message.body, self.accepts),)

    def outputs(self, result: Any, message: Message) -> list[Message]:
        """Return the outputs in *result*, encoded; the next attempt gives them the same ids.

        A generator is exhausted before any output is sent: if it raises an error, none is sent.

        Raises:
            TypeError, ValueError: a value cannot be JSON (see `mousetrap.model.encoding.encode`).
        """
        if result is None:
            return []
        values = result if inspect.isgenerator(result) else (result,)
        outputs = [message.child(value, self.name, n) for n, value in enumerate(values)]
        for output in outputs:
            output.body  # noqa: B018 -- encodes now, so that an error counts as the handler's
        return outputs

    def __repr__(self) -> str:
        accepts = getattr(self.accepts, "__name__", self.accepts)
        return f"<Handler {self.name}({accepts}){' async' if self.is_async else ''}>"


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    target = function if inspect.isroutine(function) else type(function).__call__
    try:
        return get_type_hints(target)
    except NameError:  # a type was imported under TYPE_CHECKING only: the data is not validated
        return {}
