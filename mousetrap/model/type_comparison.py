"""Whether values of one type can be decoded as another one: what one stage sends, the next reads.

A finding is only what is certain. A type that cannot be known, a validator or a serializer fits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_origin, is_typeddict

from mousetrap.model.composed_types import has_pydantic
from mousetrap.model.type_shapes import SCALARS, Property, Shape, shape_of

MAX_DEPTH = 8  # types inside of types that are compared; a type may contain itself
Finding = Literal["fits", "may fail", "never fits"]


@dataclass(frozen=True)
class Comparison:
    """What was found, and why, as ``Order has no price``."""

    finding: Finding
    why: str = ""

    @property
    def rank(self) -> int:
        """How bad it is: 0, 1 or 2."""
        return ("fits", "may fail", "never fits").index(self.finding)

    def at_most(self, finding: Finding) -> Comparison:
        """Return this comparison, made no worse than *finding*."""
        return Comparison(finding, self.why) if self.rank > Comparison(finding).rank else self


FITS = Comparison("fits")
_NUMBERS = [("float", "int"), ("int", "bool"), ("float", "bool")]


def compare(written: Any, read: Any, depth: int = MAX_DEPTH) -> Comparison:
    """Return whether each value of the type *written*, encoded, can be decoded to the type *read*.

    ``never fits``: no value can. ``may fail``: some values cannot.
    """
    one, other = shape_of(written, is_read=False), shape_of(read, is_read=True)
    if one is None or other is None or not depth:
        return FITS
    found = _compare(one, other, depth)
    if found.rank == 2 and one.properties is not None and _may_be_more(one.type, read, depth):
        return found.at_most("may fail")
    return found


def _may_be_more(cls: Any, read: Any, depth: int) -> bool:
    """Return whether a value that is annotated as *cls* may have what *read* needs.

    A subclass may, and a dict is of a TypedDict also if it has more keys.
    """
    cls = get_origin(cls) or cls
    return is_typeddict(cls) or any(
        compare(each, read, depth - 1).rank < 2 for each in cls.__subclasses__()
    )


def _compare(one: Shape, other: Shape, depth: int) -> Comparison:
    written, read = one.type, other.type
    if one.alternatives:
        found = [compare(each, read, depth - 1) for each in one.alternatives]
        bad = [each for each in found if each.rank]
        if not bad:
            return FITS
        worst = max(bad, key=lambda each: each.rank)
        return worst if all(each.rank == 2 for each in found) else worst.at_most("may fail")
    if other.alternatives:
        # a union with pydantic's types is pydantic's, which takes a number from a text, and more
        is_lax = any(map(has_pydantic, other.alternatives)) and one.kinds <= SCALARS
        found = [compare(written, each, depth - 1) for each in other.alternatives]
        best = FITS if is_lax else min(found, key=lambda each: each.rank)
        return best if best.rank < 2 else Comparison("never fits", _differ(one, other))
    common = one.kinds & other.kinds
    if not common:
        differ = Comparison("never fits", _differ(one, other))
        # what is annotated float may be an int, and what is annotated int may be a bool
        is_number = (*one.kinds, *other.kinds) in _NUMBERS
        return differ.at_most("may fail") if is_number else differ
    if one.values and other.values and not one.values <= other.values:
        finding: Finding = "may fail" if one.values & other.values else "never fits"
        return Comparison(finding, _differ(one, other))
    if common == {"array"}:
        return compare(one.item, other.item, depth - 1).at_most("may fail")  # it may be empty
    if one.properties is not None and other.properties is not None:
        return _compare_objects(one, other, depth)
    return FITS


def _compare_objects(one: Shape, other: Shape, depth: int) -> Comparison:
    assert one.properties is not None
    assert other.properties is not None
    worst = FITS
    for read in other.properties:
        found = _compare_property(one, other, read, depth)
        worst = max(worst, found, key=lambda each: each.rank)
    known = {key for each in other.properties for key in each.keys}
    for written in one.properties:
        if other.is_closed and written.is_always_there and known.isdisjoint(written.keys):
            why = f"{_name(other)} forbids the field {written.keys[0]!r} of {_name(one)}"
            worst = max(worst, Comparison("never fits", why), key=lambda each: each.rank)
    return worst


def _compare_property(one: Shape, other: Shape, read: Property, depth: int) -> Comparison:
    assert one.properties is not None
    key = read.keys[0]
    written = next((e for e in one.properties if not set(e.keys).isdisjoint(read.keys)), None)
    if written is None:
        if not read.is_always_there:
            return FITS
        return Comparison("never fits", f"{_name(one)} has no {key!r}, which {_name(other)} needs")
    found = compare(written.type, read.type, depth - 1)
    if not written.is_always_there:
        if read.is_always_there and not found.rank:
            return Comparison("may fail", f"{_name(one)} may have no {key!r}")
        found = found.at_most("may fail")
    return Comparison(found.finding, f"{key!r}: {found.why}") if found.rank else FITS


def _differ(one: Shape, other: Shape) -> str:
    return f"{_name(one)} is not {_name(other)}"


def _name(shape: Shape) -> str:
    type = shape.type
    plain = getattr(type, "__args__", None) is None
    return getattr(type, "__name__", str(type)) if plain else str(type)
