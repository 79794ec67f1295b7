"""A value with fields, such as settings, as a table: first those that differ from the default.

Nothing here talks to a broker.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from mousetrap.display.cells import Marked, Plain
from mousetrap.display.formats import UNKNOWN, counted, duration, number, yes_or_no
from mousetrap.display.table import Table

NONE = "none"
DIFFERS = "≠"
HIDDEN = "********"


def field_table(
    value: Any,
    title: str,
    *,
    units: Mapping[str, str] | None = None,
    variables: Mapping[str, str] | None = None,
    names: Collection[str] = (),
    unshown: Collection[str] = (),
) -> Table:
    """Return a row for each field of the data class *value*: name, value and default.

    The fields that differ from their defaults are the first. *units* are shown with the values; the
    numbers of the fields *names* only name something, as a port does, and have no separators. A
    field that is not part of the `repr` is hidden. With *variables* (field -> environment variable)
    there is a column for them. The fields *unshown* have no row while they are as by default.
    """
    changed: list[list[str]] = []
    others: list[list[str]] = []
    for field in dataclasses.fields(value):
        unit = (units or {}).get(field.name, "")
        has, default = getattr(value, field.name), _default_of(field)
        if field.name in names:
            has, default = str(has), str(default)
        shown = _readable(has, unit) if field.repr else HIDDEN
        row = [field.name, shown, _readable(default, unit) if field.repr else HIDDEN]
        if variables is not None:
            row.append(variables.get(field.name, UNKNOWN))
        if has != default:
            changed.append(row)
        elif field.name not in unshown:
            others.append(row)
    columns = (
        "setting",
        "value",
        "default",
        *(["environment variable"] if variables is not None else []),
    )
    differ = "differs" if len(changed) == 1 else "differ"
    all_ = counted(len(dataclasses.fields(value)), "setting")
    mark = f" ({DIFFERS})" if changed else ""
    marked = {row[0] for row in changed}
    return Table(
        columns,
        [*changed, *others],
        f"{title}: {len(changed)} of {all_} {differ} from the default{mark}",
        shows={"setting": lambda name: Marked(DIFFERS, name) if name in marked else Plain(name)},
    )


def _default_of(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _readable(value: Any, unit: str) -> str:
    if value is dataclasses.MISSING:
        return UNKNOWN
    if isinstance(value, bool):
        return str(yes_or_no(value))
    if isinstance(value, int | float) and unit == "s":
        return duration(value)
    if isinstance(value, int | float):
        return f"{number(value)} {unit}".rstrip()
    if isinstance(value, tuple) and all(isinstance(each, int | float) for each in value):
        return f"{', '.join(map(number, value))} {unit}".strip() if value else NONE
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or NONE
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {each}" for name, each in value.items()) or NONE
    return str(value) or NONE
