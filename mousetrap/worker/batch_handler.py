"""How a worker calls the function of a batch: the list that it passes, and what it may return.

The function gets a list with the data of each message, decoded to the type in its annotation
``list[Score]``; of ``list[Message]`` the messages themselves. It returns None, or one element for
each message, in their order, as a list, a tuple or an iterator. Each element is what the handler of
that message alone would have returned: None is no output, an iterator several, a `Send` has a
target of its own, and anything else, a list too, is one output. Outputs are those of their message,
with the ids that they have without batches. An element that cannot be sent fails its message alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, MutableSequence, Sequence
from contextvars import Token
from typing import Any, TypeAlias, get_args, get_origin

from mousetrap.display.formats import counted
from mousetrap.errors import FailedItems, MousetrapError, UndecodableMessage
from mousetrap.model.batch import Batch, HandledTogether
from mousetrap.model.decoding import decode
from mousetrap.model.delays import DEFAULT, SendOptions
from mousetrap.model.message import Message
from mousetrap.model.one_or_many import is_many, outputs_of
from mousetrap.model.targets import NO_TARGETS, Address
from mousetrap.settings import Settings
from mousetrap.worker.handler import Handler, finish_here, finished, must_be_awaited
from mousetrap.worker.handling import Handling, current_handling
from mousetrap.worker.signature import DataParameter, data_parameter

Element: TypeAlias = tuple[Any, ...] | BaseException
"""What came of one message of a batch: the values to send, or why it failed."""

_LISTS = (list, Sequence, MutableSequence, Collection, Iterable)


class BatchHandler(Handler):
    """A function that handles the messages of a *batch* in one call; `accepts` is one's type.

    Raises:
        TypeError: as `Handler`, or its parameter is annotated and not a list.
    """

    batch: Batch

    def __init__(
        self,
        function: Callable[..., Any],
        batch: Batch,
        name: str | None = None,
        carry: Sequence[str] = (),
    ) -> None:
        self.batch = batch
        super().__init__(function, name, carry)

    def _data_parameter(self) -> DataParameter | None:
        parameter = data_parameter(self.function, self.name, item_type)
        if parameter is None:
            raise TypeError(
                f"{self.name} cannot handle batches: it has no parameter for the list of messages, "
                f"as in def {self.name}(values: list)"
            )
        return parameter

    def item(self, message: Message) -> tuple[Any, int]:
        """Return what the list has for *message*, and the bytes of its content.

        Raises:
            UndecodableMessage: the body is empty, not JSON, or not of the annotated type.
        """
        if self.accepts is Message:
            return message, len(message.body)
        content = message.body if message.content_encoding is None else message.content
        if not content:
            raise UndecodableMessage(f"empty body, but {self.name} needs data", 0)
        return decode(content, self.accepts), len(content)

    def call_items(self, items: list[Any]) -> list[Element]:
        """Call the function with *items*; return what came of each of them.

        Raises:
            TypeError, ValueError: it did not return one element for each.
            BaseException: whatever it raises, except for `FailedItems`.
        """
        number = len(items)  # now: the list is the function's
        try:
            result = self.function(items)
            if must_be_awaited(result):
                result = finish_here(result)
            return self._elements(result, number)
        except FailedItems as failed:
            return self._with_failed(failed, number)

    async def call_items_async(self, items: list[Any]) -> list[Element]:
        """Call the function on this event loop; see `call_items`."""
        number = len(items)
        try:
            result = self.function(items)
            if must_be_awaited(result):
                result = await finished(result)
            return self._elements(result, number)
        except FailedItems as failed:
            return self._with_failed(failed, number)

    def outputs_of(
        self, element: Element, message: Message, handling: Handling | None
    ) -> list[Message]:
        """Return the outputs of *message* in its *element*, as `outputs` does; or raise its error.

        Raises:
            BaseException: why the message failed, or an output cannot be sent.
        """
        if isinstance(element, BaseException):
            raise element
        return self.outputs(iter(element), message, handling)

    def call(self, message: Message, handling: Handling | None = None) -> list[Message]:
        """Call the function with *message* alone, a batch of one, and return the outputs."""
        item, _ = self.item(message)
        with BatchScope([message], self.name):
            [element] = self.call_items([item])
        return self.outputs_of(element, message, handling)

    async def call_async(self, message: Message, handling: Handling | None = None) -> list[Message]:
        """Call the function with *message* alone on this event loop; see `call`."""
        item, _ = self.item(message)
        with BatchScope([message], self.name):
            [element] = await self.call_items_async([item])
        return self.outputs_of(element, message, handling)

    def _elements(self, result: Any, number: int, failed: Collection[int] = ()) -> list[Element]:
        """Return the values in each element of *result*; those of *failed* positions are not read.

        The iterators in it are exhausted here, where the time limit still holds.
        """
        if result is None:
            return [()] * number
        if not is_many(result):
            raise TypeError(
                f"{self.name} returned a {type(result).__name__} for a batch: return None, or a "
                f"list with one element for each message, in their order (None for no output)"
            )
        elements = list(result)
        if len(elements) != number:
            raise ValueError(
                f"{self.name} returned {counted(len(elements), 'element')} for a batch of "
                f"{counted(number, 'message')}: "
                f"return None, or one element for each, in their order (None for no output); "
                f"messages that failed are named by raising FailedItems"
            )
        return [
            () if position in failed else _values(element)
            for position, element in enumerate(elements)
        ]

    def _with_failed(self, failed: FailedItems, number: int) -> list[Element]:
        if far := [each for each in failed.errors if each >= number]:
            raise ValueError(
                f"{self.name} raised FailedItems for position {far[0]} of a batch of {number} "
                f"messages: positions begin at 0"
            ) from failed
        elements = self._elements(failed.results, number, failed.errors.keys())
        for position, error in failed.errors.items():
            elements[position] = error
        return elements


class BatchHandling(Handling):
    """The handling of a whole batch, in which nothing can be sent: it would be no message's."""

    __slots__ = ()

    def add(
        self, values: Sequence[object], target: Address, options: SendOptions = DEFAULT,  # noqa: ARG002 -- as the base has it
    ) -> list[Message]:  # fmt: skip
        """Raise an error: outputs are returned.

        Raises:
            MousetrapError: always.
        """
        raise MousetrapError(
            f"{self.name} handles a batch, so it cannot send to {target!s} itself: of which "
            f"message would that be an output? Return one element for each message, in their "
            f"order; an element may be a Send(value, to={str(target)!r}), or an iterator of several"
        )


class BatchScope:
    """A context in which *messages* are handled together by the stage *name*."""

    __slots__ = ("_handling", "_together", "_token")

    def __init__(
        self, messages: Sequence[Message], name: str, settings: Settings | None = None
    ) -> None:
        self._together = HandledTogether(messages)
        self._handling = BatchHandling(messages[0], name, settings, NO_TARGETS)

    def __enter__(self) -> BatchHandling:
        self._together.__enter__()
        self._token: Token[Handling] = current_handling.set(self._handling)
        return self._handling

    def __exit__(self, *_: object) -> None:
        self._handling.end()
        current_handling.reset(self._token)
        self._together.__exit__()


def new_handler(
    function: Callable[..., Any], name: str | None, carry: Sequence[str], batch: Batch | None
) -> Handler:
    """Return the handler of *function*, which gets one message, or a *batch* of them.

    Raises:
        TypeError: the function cannot handle them.
    """
    if batch is None:
        return Handler(function, name, carry)
    return BatchHandler(function, batch, name, carry)


def item_type(annotation: Any) -> Any:
    """Return the type of the items of a list that is annotated so.

    Raises:
        TypeError: it is not annotated as a list.
    """
    if hasattr(annotation, "__metadata__"):
        return item_type(annotation.__origin__)
    if any(annotation is each for each in (Any, *_LISTS)):
        return Any
    if get_origin(annotation) in _LISTS:
        return next(iter(get_args(annotation)), Any)
    shown = getattr(annotation, "__name__", None) or str(annotation)
    raise TypeError(f"with batch= it gets a list: annotate it list[{shown}]")


def _values(element: Any) -> Element:
    try:
        return tuple(outputs_of(element))
    except BaseException as error:  # noqa: BLE001 -- a generator of the user's: its message fails
        return error
