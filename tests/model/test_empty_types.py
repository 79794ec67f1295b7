"""Types that no JSON value can fill are refused; what differs by a little is accepted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypedDict

import msgspec
import pytest

from mousetrap.errors import UndecodableMessage
from mousetrap.model.decoding import check_decodable, decode


@dataclass
class Point:
    x: int


@dataclass(frozen=True)
class Frozen:
    x: int


class Struct(msgspec.Struct):
    x: int


@dataclass
class Endless:
    inner: Endless


@dataclass
class Ping:
    pong: tuple[int, Pong]


@dataclass
class Pong:
    ping: Ping


class EndlessTable(TypedDict):
    inner: EndlessTable


class Pair(NamedTuple):
    values: list[int]


@dataclass
class Order:
    points: set[Point]


@dataclass
class Tree:
    children: list[Tree]
    parent: Tree | None


class Chain(msgspec.Struct):
    rest: Chain | None = None


EMPTY = {  # the type: a body that has its form
    "set of lists": (set[list[int]], b"[[1]]"),
    "set of data classes": (set[Point], b'[{"x": 1}]'),
    "set of structs": (set[Struct], b'[{"x": 1}]'),
    "set of tuples with lists": (set[tuple[list[int], int]], b"[[[1], 1]]"),
    "set of named tuples with lists": (frozenset[Pair], b"[[[1]]]"),
    "set in a field": (Order, b'{"points": [{"x": 1}]}'),
    "tuples as keys": (dict[tuple[int, int], str], b'{"1, 1": "a"}'),
    "objects as keys": (list[dict[Point, int]], b'[{"1": 1}]'),
    "object in itself": (Endless, b'{"inner": {}}'),
    "two objects in each other": (Ping, b'{"pong": [1, {"ping": {}}]}'),
    "table in itself": (EndlessTable, b'{"inner": {}}'),
}
FILLED = {
    "set of tuples": (set[tuple[int, str]], b'[[1, "a"]]'),
    "set of frozen data classes": (set[Frozen], b'[{"x": 1}]'),
    "set of some that can be hashed": (set[int | list[int]], b"[1]"),
    "whole numbers as keys": (dict[int, str], b'{"1": "a"}'),
    "tree": (Tree, b'{"children": [], "parent": null}'),
    "chain": (Chain, b'{"rest": {}}'),
}


@pytest.mark.parametrize("kind", EMPTY)
def test_a_type_that_no_value_can_fill_is_refused(kind):
    """It would be found out with the first message, and with each one after it."""
    type, body = EMPTY[kind]

    with pytest.raises(TypeError, match=r"no JSON value can fill .*: "):
        check_decodable(type)
    with pytest.raises((TypeError, UndecodableMessage)):
        decode(body, type)


@pytest.mark.parametrize("kind", FILLED)
def test_a_type_that_a_value_can_fill_is_accepted(kind):
    """The check refuses nothing that works."""
    type, body = FILLED[kind]

    check_decodable(type)

    assert decode(body, type) is not None
