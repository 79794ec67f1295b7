"""How far a run is: which cell runs, and what its stages have counted so far.

A notebook's Run tells of its stages by a file, whose name it finds in the environment. What stands
there was written by the notebook, so nothing in it is relied upon.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROGRESS_VARIABLE = "MOUSETRAP_PROGRESS"
"""The environment variable that names the file; a Run replaces the file in one step."""

MAX_PROGRESS_BYTES = 100_000  # of that file; a guess: a thousand stages need less
MAX_STAGES = 20  # shown; a guess: more do not fit on a line


@dataclass(frozen=True)
class CheckProgress:
    """A look at a run: *done* of *total* code cells have ended, cell *number* runs.

    `number` counts all cells of the notebook from 1, like that of a `FailingCell`; it is 0 before
    the first. `line` is the cell's first line that is no comment. `stages` is what a Run counts,
    ``{"fetch": {"done": 88, "retried": 3, "dead": 0}}``, and `open` how many messages have no fate
    yet; empty and None when the notebook has no Run.
    """

    done: int = 0
    total: int = 0
    number: int = 0
    line: str = ""
    stages: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    open: int | None = None


def read_stage_counts(path: Path) -> dict[str, Any]:
    """Return `stages` and `open` of a `CheckProgress` from the file at *path*; {} without one.

    What does not look as agreed is left out: a check is not to fail because of a picture of it.
    """
    try:
        # A pipe of that name would keep us waiting for ever.
        if not path.is_file() or path.stat().st_size > MAX_PROGRESS_BYTES:
            return {}
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(told, dict):
        return {}
    stages = told.get("stages")
    named = list(stages.items())[:MAX_STAGES] if isinstance(stages, dict) else []
    found: dict[str, Any] = {"stages": {name: _counts(each) for name, each in named}}
    if _is_count(told.get("open")):
        found["open"] = told["open"]
    return found


def _counts(stage: object) -> dict[str, int]:
    pairs = stage.items() if isinstance(stage, dict) else ()
    return {name: count for name, count in pairs if _is_count(count)}


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**15
