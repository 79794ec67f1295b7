"""Whether a function can be called with a message's data, and the types of data and outputs.

Everything is found out from the function itself, before there is a message, so that a function
which cannot take the data is refused where it is defined.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from dataclasses import dataclass
from inspect import Parameter, Signature
from typing import Any, ParamSpecArgs, Union, get_args, get_origin, get_type_hints

from mousetrap.display.safe_text import safe
from mousetrap.model.composed_types import is_union
from mousetrap.model.decoding import check_decodable
from mousetrap.model.message import Message

MAX_WRAPPED = 20  # decorators and partials around one function; a guess: more than anyone uses
_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.VAR_POSITIONAL)
_VARIABLE = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


@dataclass(frozen=True)
class DataParameter:
    """The parameter that gets the data: its type, and whether the function needs it."""

    type: Any
    is_required: bool


def data_parameter(
    function: Any, name: str, part: Callable[[Any], Any] = lambda found: found
) -> DataParameter | None:
    """Return the parameter of *function* that gets the data; None: it has no parameter at all.

    *name* is for people. *part* returns the part of the annotated type that is one message's, or
    raises a TypeError that says what the annotation must be.

    Raises:
        TypeError: *function* cannot be called with one argument, or no JSON can become the type of
            its parameter; the text says what to change.
    """
    called = _signature(_bare(function), function, name)  # what Python binds the data to
    _require_one_argument(function, called, name)
    first = _first(called)
    described = first
    if first is None or first.kind is Parameter.VAR_POSITIONAL or hasattr(function, "__wrapped__"):
        # A decorator's wrapper: ``functools.wraps`` says which function is behind it.
        shown = _signature(function, function, name)
        if first is None or first.kind is Parameter.VAR_POSITIONAL:
            _require_one_argument(function, shown, name)
            first = _first(shown)
        described = _first(shown) or first
    if first is None or described is None:
        return None
    is_required = first.default is first.empty and first.kind not in _VARIABLE
    return DataParameter(_type_of(described, function, name, part), is_required)


def is_async(function: Any) -> bool:
    """Return whether a call of *function* gives a coroutine or an asynchronous generator.

    False if only a call can show it, as with a decorated function or a lambda.
    """
    function = _unbound(function)
    if not inspect.isroutine(function) and not inspect.isclass(function):
        function = getattr(type(function), "__call__", function)  # noqa: B004 -- not of the object
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


# ---- what can be called --------------------------------------------------------------------------


def _require_one_argument(function: Any, signature: Signature, name: str) -> None:
    """Check that a call with one positional argument, and no other, can succeed."""
    parameters = list(signature.parameters.values())
    first = _first(signature)
    needed = [
        each.name for each in parameters
        if each.default is each.empty and each.kind not in _VARIABLE and each is not first
    ]  # fmt: skip
    call = "it is called with one argument, the message's data"
    if first is None and (parameters or not _may_do_without(function)):
        filled = isinstance(function, (functools.partial, functools.partialmethod))
        why = "the partial has filled it" if filled else "it has no parameter for it"
        others = f", and give {', '.join(needed)} a default" if needed else ""
        raise TypeError(
            f"{name} cannot handle messages: {call}, and {why}: "
            f"leave the first parameter to the data, as in def {_word(name)}(data){others}"
        )
    if first is not None and first.name in ("self", "cls") and _is_method_of_class(function):
        raise TypeError(
            f"{name} cannot handle messages: its first parameter is {first.name!r}, not the data: "
            f"it is a method, so give the method of an object: TheClass().{_word(name)}"
        )
    if needed:
        raise TypeError(
            f"{name} cannot handle messages: {call}; give {', '.join(needed)} a default, or fill "
            f"it with functools.partial"
        )


def _may_do_without(function: Any) -> bool:
    """Return whether *function* may have no parameter: a class or a partial is no job by itself."""
    return not inspect.isclass(function) and not isinstance(function, functools.partial)


def _is_method_of_class(function: Any) -> bool:
    owner = getattr(_unwrapped(function), "__qualname__", "").rpartition(".")[0]
    return inspect.isfunction(function) and bool(owner) and not owner.endswith("<locals>")


def _first(signature: Signature) -> Parameter | None:
    """Return the parameter that gets the first positional argument."""
    first = next(iter(signature.parameters.values()), None)
    return first if first is not None and first.kind in _POSITIONAL else None


def _signature(function: Any, original: Any, name: str) -> Signature:
    if not callable(original):
        raise TypeError(
            f"{safe(repr(original), 60)} cannot handle messages, because it cannot be called: "
            f"give a function of one argument, the message's data, or the method of an object"
        )
    try:
        return inspect.signature(function)
    except NameError as error:  # Python 3.14 evaluates annotations when they are read
        raise TypeError(_unknown_name(name, error)) from None
    except Exception as error:  # noqa: BLE001 -- ``__signature__`` may be any object, with any error
        raise TypeError(
            f"{name} cannot handle messages: its parameters cannot be read "
            f"({type(error).__name__}); call it from a function of one argument, as in "
            f"lambda data: {_word(name)}(data)"
        ) from None


def _bare(function: Any) -> Any:
    """Return *function* without what it says of itself (``__wrapped__``, ``__signature__``)."""
    if isinstance(function, types.FunctionType):
        bare = types.FunctionType(
            function.__code__, function.__globals__, function.__name__, function.__defaults__,
            function.__closure__,
        )  # fmt: skip
        bare.__kwdefaults__ = function.__kwdefaults__
        bare.__annotations__ = dict(function.__annotations__)
        return bare
    if isinstance(function, types.MethodType):
        return types.MethodType(_bare(function.__func__), function.__self__)
    if isinstance(function, staticmethod):
        return _bare(function.__func__)
    if isinstance(function, functools.partial):
        return functools.partial(_bare(function.func), *function.args, **function.keywords)
    call = getattr(type(function), "__call__", None)  # noqa: B004 -- the function is needed
    if isinstance(call, types.FunctionType) and not inspect.isclass(function):
        return types.MethodType(_bare(call), function)
    return function


# ---- the type of the data ------------------------------------------------------------------------


def _type_of(parameter: Parameter, function: Any, name: str, part: Callable[[Any], Any]) -> Any:
    """Return the type of *parameter*, or `Message`; a type that no JSON can become is refused."""
    if parameter.annotation is parameter.empty:
        return Any
    try:
        found = _evaluated(parameter.annotation, function)
    except NameError as error:
        raise TypeError(_unknown_name(name, error)) from None
    except Exception as error:
        raise TypeError(
            f"{name} cannot handle messages: the type of its parameter {parameter.name!r} cannot "
            f"be evaluated ({type(error).__name__}: {error}); correct the annotation"
        ) from error
    if isinstance(found, ParamSpecArgs):  # ``*args: P.args`` of a decorator
        return Any
    annotated = found
    try:
        found = part(found)
        members = get_args(found) if is_union(found) or hasattr(found, "__metadata__") else ()
        if found is Message or any(each is Message for each in members):
            others = set(members) - {Message, type(None)}
            if not others or hasattr(found, "__metadata__") or found is Message:
                return Message
        check_decodable(found)
    except TypeError as error:
        shown = getattr(annotated, "__name__", None) or str(annotated)
        raise TypeError(
            f"{name} cannot handle messages: its parameter {parameter.name!r} is annotated "
            f"{str(annotated) if get_args(annotated) else shown}, and {error}"
        ) from None
    return found


def _unknown_name(name: str, error: NameError) -> str:
    return (
        f"{name} cannot handle messages: the type of its data cannot be evaluated ({error}); "
        f"define or import the type before the function, and not under `if TYPE_CHECKING:`"
    )


def _evaluated(annotation: Any, function: Any) -> Any:
    owner = _unwrapped(function)
    if inspect.isclass(owner):
        names = vars(sys.modules.get(owner.__module__, types.ModuleType("")))
    else:
        names = getattr(owner, "__globals__", {})
    holder = types.SimpleNamespace(__annotations__={"data": annotation})
    try:
        return get_type_hints(holder, names, None, include_extras=True)["data"]
    except NameError:
        local = dict(_names_around(owner))
        return get_type_hints(holder, names, local, include_extras=True)["data"]


def _names_around(function: Any) -> Iterator[tuple[str, Any]]:
    """Yield the names that *function* could see: its closure's, and its outer functions' that run.

    A class that is defined inside a function is in neither the module nor the closure.
    """
    outer = getattr(function, "__qualname__", "").rpartition(".<locals>.")[0]
    frame = inspect.currentframe() if outer else None
    while frame is not None:
        if frame.f_code.co_qualname == outer:
            yield from frame.f_locals.items()
            break
        frame = frame.f_back
    code: types.CodeType | None = getattr(function, "__code__", None)
    for cell_name, cell in zip(
        code.co_freevars if code else (), getattr(function, "__closure__", None) or (), strict=False
    ):
        try:
            yield cell_name, cell.cell_contents
        except ValueError:  # not assigned yet
            continue


def _unbound(function: Any) -> Any:
    """Return the function inside partials, bound methods and static methods."""
    for _ in range(MAX_WRAPPED):
        if isinstance(function, functools.partial):
            function = function.func
        elif isinstance(function, (types.MethodType, staticmethod)):
            function = function.__func__
        else:
            break
    return function


def _unwrapped(function: Any) -> Any:
    """Return the function that a person wrote, from inside decorators, too."""
    for _ in range(MAX_WRAPPED):
        inner = _unbound(function)
        inner = getattr(inner, "__wrapped__", inner)
        if inner is function:
            break
        function = inner
    if not inspect.isroutine(function) and not inspect.isclass(function):
        return getattr(type(function), "__call__", function)  # noqa: B004 -- the function is needed
    return function


def _word(name: str) -> str:
    return name if name.isidentifier() else "f"


# ---- the type of the outputs ---------------------------------------------------------------------


_ITERATORS = (Iterator, Generator, AsyncIterator, AsyncGenerator)
_ITERABLES = (Iterable, AsyncIterable)  # a list, which is one value, or an iterator


def output_type(function: Any, *, of_batch: bool = False) -> Any:
    """Return the type of each value that *function* sends on; Any if that is not certain.

    It is the annotated one, of an iterator that of its items. A returned None sends nothing. For
    *of_batch* see `returned_type`.
    """
    found = returned_type(function, of_batch=of_batch)
    if get_origin(found) in _ITERATORS:
        return get_args(found)[0]
    if get_origin(found) in _ITERABLES:
        return Any
    kept = [each for each in _members(found) if each not in (None, types.NoneType)]
    return Union[tuple(kept)] if kept else Any  # noqa: UP007 -- of a tuple


def returns_a_value(function: Any, *, of_batch: bool = False) -> bool | None:
    """Return whether each call of *function* that ends gives a value to send on.

    None: its annotation does not say. An iterator may be empty, so of one it is False.
    """
    found = returned_type(function, of_batch=of_batch)
    members = _members(found)
    if get_origin(found) in _ITERATORS or any(e in (None, types.NoneType) for e in members):
        return False
    return all(map(_is_one_value, members)) or None


def _is_one_value(type: Any) -> bool:
    """Return whether a value of *type* is certainly neither None nor an iterator."""
    cls = get_origin(type) or type
    is_known = inspect.isclass(cls) and cls not in (object, Any)
    return is_known and not inspect.isabstract(cls) and not getattr(cls, "_is_protocol", False)


def _members(type: Any) -> tuple[Any, ...]:
    return get_args(type) if get_origin(type) in (Union, types.UnionType) else (type,)


def returned_type(function: Any, *, of_batch: bool = False) -> Any:
    """Return the annotated type of what *function* returns, awaited; Any if it is not certain.

    If it handles batches (*of_batch*), the type of what it returns for one message.
    """
    if hasattr(function, "__wrapped__"):  # a decorator may change what comes back
        return Any
    try:
        annotation = _signature(function, function, "").return_annotation
        found = Any if annotation is Signature.empty else _evaluated(annotation, function)
    except Exception:  # noqa: BLE001 -- an annotation can be any object; this one is not needed
        return Any
    while get_origin(found) in (Awaitable, Coroutine):
        found = get_args(found)[-1]
    return _of_one_message(found) if of_batch else found


def _of_one_message(found: Any) -> Any:
    """Return the type of an element of *found*, which is returned for a batch."""
    lists = [each for each in _members(found) if each not in (None, types.NoneType)]
    if len(lists) != 1 or get_origin(lists[0]) not in (list, Sequence, *_ITERABLES, *_ITERATORS):
        return Any if lists else found
    element = get_args(lists[0])[0]
    return element if lists[0] is found else Union[element, None]  # noqa: UP007 -- of any type
