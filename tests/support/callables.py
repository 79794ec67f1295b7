"""Callables of every kind, and what must become of each as a handler.

`TAKES` can be called with a message's data; `take_seen` returns what they got. `REFUSED` cannot,
and the text is a part of the error where such a function is defined. `AWAITED` return something to
await, whatever they look like, and double the data.
"""

# ruff: noqa: ARG002, ARG005 -- the parameters are the subject, not what is done with them

from __future__ import annotations

import asyncio
import functools
import inspect
import operator
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar
from unittest.mock import AsyncMock, MagicMock, Mock, create_autospec

P = ParamSpec("P")
R = TypeVar("R")

_all_seen: list[Any] = []


def keep(data: Any) -> None:
    """Keep *data* as what a handler got."""
    _all_seen.append(data)


def take_seen() -> list[Any]:
    """Return what handlers have got since the last call."""
    found = list(_all_seen)
    _all_seen.clear()
    return found


# ---- parameters of every kind --------------------------------------------------------------------


def plain(data):
    keep(data)


def positional_only(data, /):
    keep(data)


def with_default(data=None):
    keep(data)


def typed(data: int):
    keep(data)


def variable(*data):
    keep(*data)


def variable_of_a_type(*data: int):
    keep(*data)


def data_and_variable(data, *others):
    assert not others
    keep(data)


def data_and_keywords(data, **others):
    assert not others
    keep(data)


def data_and_default(data, scale=1):
    keep(data)


def data_and_keyword_default(data, *, scale=1):
    keep(data)


def data_and_scale(data, *, scale):
    keep(data)


def two_defaults(data=0, scale=1):
    keep(data)


def anything(*data, **others):
    keep(*data)


def generator(data):
    keep(data)
    yield data


def nothing():
    raise AssertionError("called without the data")


def keyword_only(*, data):
    raise AssertionError("called without the data")


def keyword_only_with_default(*, data=None):
    raise AssertionError("called without the data")


def keywords(**data):
    raise AssertionError("called without the data")


def keyword_default_and_keywords(*, scale=1, **others):
    raise AssertionError("called without the data")


def two(data, other):
    raise AssertionError("called without the other argument")


def two_positional_only(data, other, /):
    raise AssertionError("called without the other argument")


def data_and_keyword(data, *, other):
    raise AssertionError("called without the other argument")


def variable_and_keyword(*data, other):
    raise AssertionError("called without the other argument")


# ---- methods, classes, objects -------------------------------------------------------------------


class Methods:
    def bound(self, data: int):
        keep(data)

    @classmethod
    def of_class(cls, data: int):
        keep(data)

    @staticmethod
    def static(data: int):
        keep(data)

    def without_data(self, data=None):
        raise AssertionError("the data is no object")

    def nothing(self):
        raise AssertionError("the data is no object")

    def keyword_only(self, *, data=None):
        raise AssertionError("called without the data")

    twice = functools.partialmethod(bound, 2)


class Called:
    def __call__(self, data: int):
        keep(data)


class CalledWithTwo:
    def __call__(self, data, other):
        raise AssertionError("called without the other argument")


class CalledWithoutData:
    def __call__(self, *, data=None):
        raise AssertionError("called without the data")


@dataclass
class Record:
    n: int

    def __post_init__(self):
        keep(self.n)


@dataclass
class RecordOfTwo:
    n: int
    m: int


class NoRecord:
    pass


# ---- decorators ----------------------------------------------------------------------------------


def with_wraps(function: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        return function(*args, **kwargs)

    return wrapper


def without_wraps(function: Callable[P, R]) -> Callable[P, R]:
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        return function(*args, **kwargs)

    return wrapper


def of_one_argument(function: Callable[[Any, int], R]) -> Callable[[Any], R]:
    @functools.wraps(function)
    def wrapper(data):
        return function(data, 1)

    return wrapper


def of_no_argument(function: Callable[[Any], R]) -> Callable[[], R]:
    @functools.wraps(function)
    def wrapper(*, data=None):
        return function(data)

    return wrapper


@of_one_argument
def gets_a_second(data, second):
    keep(data)


@of_no_argument
def loses_its_data(data):
    raise AssertionError("called without the data")


def says_another_signature(data):
    keep(data)


says_another_signature.__signature__ = inspect.signature(lambda: None)


def says_it_has_data(*, data=None):
    raise AssertionError("called without the data")


says_it_has_data.__signature__ = inspect.signature(plain)


def says_no_signature(*data):
    raise AssertionError("its signature is unknown")


says_no_signature.__signature__ = "(data)"


def autospec_of(function: Callable[..., Any]) -> Any:
    spec = create_autospec(function)
    spec.side_effect = keep
    spec.return_value = None
    return spec


TAKES: dict[str, Any] = {
    "a parameter": plain,
    "positional only": positional_only,
    "a default": with_default,
    "a type": typed,
    "variable": variable,
    "variable of a type": variable_of_a_type,
    "data and variable": data_and_variable,
    "data and keywords": data_and_keywords,
    "a second with default": data_and_default,
    "a keyword with default": data_and_keyword_default,
    "two defaults": two_defaults,
    "anything": anything,
    "generator": generator,
    "lambda": lambda data: keep(data),
    "lambda with default": lambda data=1, n=2: keep(data),
    "bound method": Methods().bound,
    "class method": Methods.of_class,
    "static method": Methods.static,
    "static method of an object": Methods().static,
    "staticmethod object": vars(Methods)["static"],
    "bound method of a class, unbound and filled": functools.partial(Methods.bound, Methods()),
    "object": Called(),
    "object's __call__": Called().__call__,
    "dataclass": Record,
    "partial": functools.partial(data_and_default, scale=3),
    "partial with keyword": functools.partial(data_and_scale, scale=3),
    "partial of the first of two": functools.partial(lambda db, data: keep(data), "db"),
    "partial of partial": functools.partial(functools.partial(two_defaults, scale=1), scale=2),
    "with functools.wraps": with_wraps(plain),
    "without functools.wraps": without_wraps(plain),
    "decorated twice": with_wraps(without_wraps(with_wraps(plain))),
    "wrapper that adds an argument": gets_a_second,
    "cached": functools.lru_cache(plain),
    "single dispatch": functools.singledispatch(plain),
    "another __signature__": says_another_signature,
    "mock": Mock(side_effect=keep, return_value=None),
    "magic mock": MagicMock(side_effect=keep, return_value=None),
    "autospec": autospec_of(plain),
    "C function": _all_seen.append,
}

REFUSED: dict[str, tuple[Any, str]] = {
    "two": (two, "give other a default"),
    "two, positional only": (two_positional_only, "give other a default"),
    "a keyword besides": (data_and_keyword, "give other a default"),
    "variable and a keyword": (variable_and_keyword, "give other a default"),
    "keyword only": (keyword_only, r"def keyword_only\(data\), and give data a default"),
    "keyword only with default": (keyword_only_with_default, "it has no parameter for it"),
    "keywords": (keywords, r"as in def keywords\(data\)"),
    "keywords and default": (keyword_default_and_keywords, "it has no parameter for it"),
    "lambda with keywords": (lambda **data: data, "it has no parameter for it"),
    "unbound method": (Methods.bound, r"it is a method.*TheClass\(\)"),
    "unbound method of a default": (Methods.without_data, r"it is a method.*TheClass\(\)"),
    "unbound method of nothing": (Methods.nothing, r"it is a method.*TheClass\(\)"),
    "method of keywords": (Methods().keyword_only, "it has no parameter for it"),
    "classmethod object": (vars(Methods)["of_class"], "it cannot be called"),
    "partialmethod object": (vars(Methods)["twice"], "it cannot be called"),
    "object of two": (CalledWithTwo(), "give other a default"),
    "object without data": (CalledWithoutData(), "it has no parameter for it"),
    "dataclass of two": (RecordOfTwo, "give m a default"),
    "class of nothing": (NoRecord, "it has no parameter for it"),
    "partial that is filled": (functools.partial(plain, 1), "the partial has filled it"),
    "partial that blocks": (functools.partial(plain, data=1), "the partial has filled it"),
    "partial of two": (functools.partial(two), "give other a default"),
    "with wraps, of two": (with_wraps(two), "give other a default"),
    "with wraps, of a keyword": (with_wraps(keyword_only_with_default), "no parameter for it"),
    "wrapper that loses the data": (loses_its_data, "it has no parameter for it"),
    "__signature__ that promises data": (says_it_has_data, "it has no parameter for it"),
    "__signature__ that is none": (says_no_signature, "its parameters cannot be read"),
    "autospec of two": (create_autospec(two), "give other a default"),
    "dict": (dict, r"lambda data: dict\(data\)"),
    "int": (int, r"lambda data: int\(data\)"),
    "C function of two": (operator.add, "give b a default"),
    "no function": (5, "5 cannot handle messages, because it cannot be called"),
    "None": (None, "it cannot be called"),
    "a name": ("plain", "'plain' cannot handle messages"),
}


# ---- asynchronous --------------------------------------------------------------------------------


async def double(n: int) -> int:
    await asyncio.sleep(0)
    return 2 * n


async def doubles(n: int) -> AsyncIterator[int]:
    await asyncio.sleep(0)
    yield 2 * n


class Doubler:
    async def method(self, n: int) -> int:
        return await double(n)

    async def __call__(self, n: int) -> int:
        return await double(n)

    @staticmethod
    async def static(n: int) -> int:
        return await double(n)


class Awaited:
    """What a function may return: an object to await, which is no coroutine."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __await__(self) -> Iterator[Any]:
        return double(self.n).__await__()


def returns_a_coroutine(n: int) -> Awaitable[int]:
    return double(n)


async def returns_another(n: int) -> Any:
    return double(n)


async def returns_a_task(n: int) -> Any:
    return asyncio.ensure_future(double(n))


def sometimes(n: int) -> Any:
    return double(n) if n % 2 else 2 * n


AWAITED: dict[str, Any] = {
    "async def": double,
    "async generator": doubles,
    "async method": Doubler().method,
    "async static method": vars(Doubler)["static"],
    "object with async __call__": Doubler(),
    "partial of async": functools.partial(double),
    "partial of an object": functools.partial(Doubler()),
    "decorated with wraps": with_wraps(double),
    "decorated without wraps": without_wraps(double),
    "decorated async generator": with_wraps(doubles),
    "lambda": lambda n: double(n),
    "function": returns_a_coroutine,
    "function of an awaitable": lambda n: Awaited(n),
    "class of an awaitable": Awaited,
    "coroutine of a coroutine": returns_another,
    "coroutine of a task": returns_a_task,
    "now and then": sometimes,
    "async mock": AsyncMock(side_effect=lambda n: 2 * n),
    "wrapper that runs it": functools.wraps(double)(lambda n: asyncio.run(double(n))),
}

KNOWN_ASYNC = [
    "async def", "async generator", "async method", "async static method",
    "object with async __call__", "partial of async", "partial of an object",
    "coroutine of a coroutine", "coroutine of a task",
]  # fmt: skip
"""Those of `AWAITED` that show it before they are called: they run on one event loop."""
