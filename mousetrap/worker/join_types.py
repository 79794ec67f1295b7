"""The type of the parts that the function of a join takes."""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Any, Union, get_args, get_origin

from mousetrap.errors import SettingsError
from mousetrap.model.join_headers import Missing
from mousetrap.model.message import Message


def part_type(accepts: Any, name: str) -> Any:
    """Return the type of the parts in the list type *accepts*, without `Missing`.

    Raises:
        TypeError: it is no list; *name* is that of the function.
    """
    if accepts in (Any, Message, list):
        return Any
    origin, arguments = get_origin(accepts), get_args(accepts)
    if origin in (list, Sequence) or (origin is tuple and arguments[1:] == (...,)):
        found = arguments[0]
        if get_origin(found) in (Union, types.UnionType):
            kept = [each for each in get_args(found) if each is not Missing]
            return Union[tuple(kept)]  # noqa: UP007 -- of a tuple
        return found
    shown = getattr(accepts, "__name__", None) or str(accepts)
    raise TypeError(
        f"{name} joins, so it is called with the list of the parts, but its parameter is annotated "
        f"{shown}: use list[{shown}]"
    )


def check_takes_missing(accepts: Any, name: str) -> None:
    """Raise an error if the list type *accepts* has no place for a `Missing`.

    Raises:
        TypeError: a part may be a `Missing`, and the annotation says that it is not.
    """
    [part, *_] = get_args(accepts) or [Any]
    if accepts is Message or part in (Any, object) or Missing in (part, *get_args(part)):
        return
    shown = getattr(part, "__name__", None) or str(part)
    raise TypeError(
        f"{name} joins with missing='pass', so a part may be a mousetrap.Missing, but its "
        f"parameter is annotated {accepts}: use list[{shown} | mousetrap.Missing], or "
        f"missing='fail'"
    )


def check_no_batch(batch: object) -> None:
    """Raise an error if a stage that joins has a *batch*, too.

    Raises:
        SettingsError: it has.
    """
    if batch is not None:
        raise SettingsError(
            "a stage has batch= or joins=, not both: each call of a join is of one group; give its "
            "outputs to a stage that takes them in batches"
        )
