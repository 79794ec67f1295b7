"""Reads the tables of parameter sets: which runs of a notebook are tests, and their deadlines.

In pyproject.toml, with paths relative to pytest's root folder:

    [tool.mousetrap.notebooks."notebooks/check_pipeline.ipynb"]
    deadline = 120  # seconds; default: pytest's ini option mousetrap_deadline
    parameters.quick = { jobs = 20 }
    parameters.stormy = { jobs = 500, failure_rate = 0.3 }

The notebook's own metadata can have the same under ``mousetrap``; a key in pyproject.toml takes
precedence. Without names for the sets ``parameters`` is a list; a set is named by its values:

    parameters = [{}, { jobs = 500, failure_rate = 0.1 }]

`mousetrap.check` compares the parameters with the notebook's, before it starts a kernel.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mousetrap.check.parameters import may_be_secret
from mousetrap.errors import SettingsError

MAX_SET_NAME_LENGTH = 80  # characters of a set's name: it is part of a file name, too
_NAME = re.compile(r"[\w.=+,-]+")
_KEYS = ("deadline", "parameters")
_RESERVED = ("drift",)  # the item that compares the notebook with the package
_COPY = "notebook"  # a key that mousetrap.check leaves in the metadata of executed copies


@dataclass(frozen=True)
class Plan:
    """How a notebook is tested: with each of `sets`, which are parameters by name of the set.

    `sets` is None if nbmake runs it, without parameters. `deadline` is in seconds, None for the
    default.
    """

    sets: Mapping[str, Mapping[str, object]] | None = None
    deadline: float | None = None


def read_plans(root: Path) -> dict[Path, dict[str, Any]] | None:
    """Return the entry of each notebook in ``[tool.mousetrap]`` of *root*'s pyproject.toml.

    None means that there is no such table: the project is not configured for mousetrap.

    Raises:
        SettingsError: an entry is wrong, or its notebook does not exist.
    """
    file = root / "pyproject.toml"
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SettingsError(f"{file} cannot be read: {error}") from None
    ours = document.get("tool", {}).get("mousetrap")
    if ours is None:
        return None
    where = f"{file.name}: [tool.mousetrap"
    _require_known_keys(ours, ("notebooks",), f"{where}]")
    found = {}
    for name, entry in _table(ours.get("notebooks", {}), f"{where}.notebooks]").items():
        here = f'{where}.notebooks."{name}"]'
        if not (root / name).is_file():
            raise SettingsError(
                f"{here}: there is no such notebook in {root}{_suggestion(name, root)}"
            )
        plan_of(entry, {}, here)  # raises now, and not during the collection
        found[(root / name).resolve()] = entry
    return found


def plan_of(entry: Any, metadata: Any, where: str) -> Plan:
    """Return the plan from a notebook's entry in pyproject.toml and from its metadata.

    Raises:
        SettingsError: a key, a name or a deadline is wrong; the error says where.
    """
    entry, metadata = _table(entry, where), _table(metadata, f"{where}, metadata.mousetrap")
    if _COPY in metadata:
        metadata = {}
    _require_known_keys(entry, _KEYS, where)
    _require_known_keys(metadata, _KEYS, f"{where}, metadata.mousetrap")
    both = metadata | entry
    given = both.get("deadline")
    deadline = None if given is None else check_deadline(given, f"{where}: deadline")
    return Plan(_sets(both.get("parameters"), where), deadline)


def check_deadline(given: object, where: str) -> float:
    """Return *given*, a number or its text, in seconds.

    Raises:
        SettingsError: it is not a number above 0.
    """
    try:
        seconds = math.nan if isinstance(given, bool) else float(given)  # type: ignore[arg-type]  # wrong types are caught
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise SettingsError(f"{where} is {given!r}: it must be a number of seconds above 0")
    return seconds


def metadata_of(text: str) -> Any:
    """Return the metadata ``mousetrap`` of a notebook; {} for a file that is not a notebook."""
    try:
        document = json.loads(text)
    except ValueError:
        return {}  # nbmake reports it
    metadata = document.get("metadata") if isinstance(document, dict) else None
    return metadata.get("mousetrap", {}) if isinstance(metadata, dict) else {}


def set_name(parameters: Mapping[str, object]) -> str:
    """Return a name for a set from its values: ``jobs=500-failure_rate=0.1``.

    Test reports show the name, so a value that may be a secret is hidden. The check refuses it.
    """
    parts = [
        f"{name}={'hidden' if may_be_secret(name, value) else value}"
        for name, value in parameters.items()
    ]
    text = re.sub(r"[^\w.=+,-]", "_", "-".join(parts)) or "defaults"
    if len(text) > MAX_SET_NAME_LENGTH:
        text = f"{text[: MAX_SET_NAME_LENGTH - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return text


def _sets(given: Any, where: str) -> dict[str, dict[str, object]] | None:
    if given is None:
        return None
    if isinstance(given, list):
        tables = [_table(each, f"{where}: a set of parameters") for each in given]
        named = {set_name(each): each for each in tables}
        if len(named) < len(tables):
            raise SettingsError(
                f"{where}: two sets of parameters have the same name: give them names of their own"
            )
        return named
    sets = _table(given, f"{where}: parameters")
    for name, parameters in sets.items():
        _table(parameters, f"{where}: parameters.{name}")
        if name in _RESERVED or not _NAME.fullmatch(name) or len(name) > MAX_SET_NAME_LENGTH:
            raise SettingsError(
                f"{where}: a set of parameters cannot be called "
                f"{name[:MAX_SET_NAME_LENGTH]!r}: use letters, digits and "
                "any of . = + , - _ (and not 'drift')"
            )
    return sets


def _table(given: Any, where: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise SettingsError(f"{where} must be a table, like {{ jobs = 20 }}")
    return given


def _require_known_keys(table: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            raise SettingsError(f"{where} has no {key!r}{meant} (it takes {', '.join(known)})")


def _suggestion(name: str, root: Path) -> str:
    folder = (root / name).parent
    names = [path.name for path in folder.glob("*.ipynb")] if folder.is_dir() else []
    close = difflib.get_close_matches(Path(name).name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
