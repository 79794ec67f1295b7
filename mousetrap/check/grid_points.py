"""The points of a grid: each is a notebook with its parameters, checked before any point runs."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mousetrap.check.parameters import convert_parameters, parameters_in, read_notebook
from mousetrap.errors import ParameterError, SettingsError
from mousetrap.runtime import randomness
from mousetrap.settings import Settings

MAX_POINTS = 1000  # a guess: nobody reads a longer table
MAX_NAMESPACE_LENGTH = 40  # what `Settings` allows
_MAX_SLUG_LENGTH = 80  # characters of a file name after the point's number
# A value is quoted, as in CSV, or ends at the next comma.
_VALUE = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^,"]*))\s*(?:,|$)')


@dataclass(frozen=True)
class Point:
    """One run of a notebook in a grid.

    `varying` has the values of the axes, ``{"prefetch": 1, "jobs": 100}``. `parameters` has all
    that are given, in the types that the notebook declares. `file` is the name of its executed
    copy, `namespace` the prefix of its queues.
    """

    number: int  # from 1
    notebook: Path
    name: str
    varying: Mapping[str, object]
    parameters: Mapping[str, object]
    file: str
    namespace: str


def parse_axes(texts: Iterable[str]) -> dict[str, list[str]]:
    """Turn ``["prefetch=1,10,100"]`` into ``{"prefetch": ["1", "10", "100"]}``.

    A value that contains a comma is put into double quotes: ``delays="0.2,1","5"``.

    Raises:
        ParameterError: a text is not of this form, a name is given twice, or a value is empty. The
            error does not contain the value, which can be a secret.
    """
    axes: dict[str, list[str]] = {}
    for position, text in enumerate(texts, start=1):
        name, equals, rest = text.partition("=")
        name = name.strip()
        if not equals or not name.isidentifier():
            raise ParameterError(
                f"grid {position} is not name=value,value: write it as prefetch=1,10,100"
            )
        if name in axes:
            raise ParameterError(f"{name!r} is in the grid twice: give all of its values at once")
        axes[name] = _values(name, rest)
    return axes


def plan_points(
    notebooks: Sequence[Path],
    axes: Mapping[str, Iterable[object]],
    parameters: Mapping[str, object],
    namespace: str = "",
) -> list[Point]:
    """Return all points: each notebook with the product of the values of *axes*.

    The last axis varies fastest. Each point has its own namespace, which begins with *namespace*.

    Raises:
        ParameterError: a parameter is unknown, mistyped, looks like a secret or is given twice; two
            points are the same; or there are no points, or too many.
        CheckError: a file does not exist, or is not a notebook.
        SettingsError: *namespace* is too long for the namespaces of the points.
    """
    values = {name: _value_list(name, given) for name, given in axes.items()}
    if twice := sorted(values.keys() & parameters.keys()):
        raise ParameterError(f"{twice[0]!r} is both a parameter and in the grid: leave one out")
    count = len(notebooks) * math.prod(len(each) for each in values.values())
    if not count:
        raise ParameterError("there is no notebook to run: name at least one")
    if count > MAX_POINTS:
        raise ParameterError(
            f"the grid has {count:,} points, and at most {MAX_POINTS:,} are allowed: "
            "leave values out"
        )
    resolved = [notebook.resolve() for notebook in notebooks]
    for notebook, path in zip(notebooks, resolved, strict=True):
        if resolved.count(path) > 1:
            raise ParameterError(f"{notebook} is given twice: leave one out")
    prefix = _prefix(namespace, len(str(count)))
    points: list[Point] = []
    for notebook in notebooks:
        declared = parameters_in(read_notebook(notebook), notebook)
        fixed = convert_parameters(parameters, declared, notebook)
        columns = [
            _require_distinct(
                name,
                [convert_parameters({name: value}, declared, notebook)[name] for value in each],
            )
            for name, each in values.items()
        ]
        for row in itertools.product(*columns):
            number = len(points) + 1
            varying = dict(zip(values, row, strict=True))
            name = _name(notebook, varying, len(notebooks) > 1)
            points.append(
                Point(
                    number=number,
                    notebook=notebook,
                    name=name,
                    varying=varying,
                    parameters=fixed | varying,
                    file=f"{number:0{len(str(count))}d}-{_slug(name)}.ipynb",
                    namespace=f"{prefix}-{number}",
                )
            )
    return points


def _values(name: str, text: str) -> list[str]:
    values: list[str] = []
    at = 0
    while True:
        match = _VALUE.match(text, at)
        if match is None:
            raise ParameterError(
                f"the values of {name!r} in the grid cannot be separated: put one that contains "
                'a comma into double quotes, as in delays="0.2,1","5"'
            )
        quoted, bare = match.groups()
        value = bare.strip() if quoted is None else quoted.replace('""', '"')
        if quoted is None and not value:
            raise ParameterError(
                f"a value of {name!r} in the grid is empty: leave it out, or write empty text as "
                'two double quotes, ""'
            )
        values.append(value)
        at = match.end()
        if text[at - 1 : at] != ",":
            return values


def _value_list(name: str, given: Iterable[object]) -> list[object]:
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise ParameterError(f"the values of {name!r} in the grid are one value: give a list")
    # At most one value more than is allowed: an iterable can be endless.
    values = list(itertools.islice(given, MAX_POINTS + 1))
    if not values:
        raise ParameterError(f"{name!r} has no values in the grid: give at least one")
    return values


def _require_distinct(name: str, values: list[object]) -> list[object]:
    for value in values:
        if values.count(value) > 1:
            raise ParameterError(
                f"two values of {name!r} in the grid are the same, so two points would be equal: "
                f"leave one {str(value)[:60]!r} out"
            )
    return values


def _prefix(namespace: str, digits: int) -> str:
    prefix = f"{namespace or 'grid'}-{randomness.new_id()[:6]}"
    Settings(namespace=namespace)  # raises for a name that no queue can have
    if len(prefix) + 1 + digits > MAX_NAMESPACE_LENGTH:
        raise SettingsError(
            f"MOUSETRAP_NAMESPACE is {namespace!r}, and a grid within it needs {8 + digits} "
            f"more characters, of {MAX_NAMESPACE_LENGTH} in all: shorten it"
        )
    return prefix


def _name(notebook: Path, varying: Mapping[str, object], several: bool) -> str:
    words = [f"{name}={value}" for name, value in varying.items()]
    return ", ".join([notebook.stem, *words] if several or not words else words)


def _slug(name: str) -> str:
    """Return *name* in characters that file systems, shells and URLs accept as they are."""
    return re.sub(r"[^A-Za-z0-9._=,+-]+", "_", name.replace(", ", ","))[:_MAX_SLUG_LENGTH]
