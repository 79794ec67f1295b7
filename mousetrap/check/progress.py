"""The progress of a run as data: which cell runs, and what the stages have counted.

A Run in the notebook writes the counts of its stages to a file, whose path it gets from the
environment (`mousetrap.display.progress`). The notebook can write anything there, so every value is
checked. `mousetrap.cli.progress` shows the progress.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROGRESS_VARIABLE = "MOUSETRAP_PROGRESS"
"""The environment variable with the path of the file, which a Run replaces atomically."""

MAX_PROGRESS_BYTES = 100_000  # of the file; a guess: a thousand stages need less
MAX_STAGES = 20  # shown; a guess: more do not fit on a line


@dataclass(frozen=True)
class CheckProgress:
    """The progress of a run: *done* of *total* code cells have ended, cell *number* runs.

    `number` counts all cells of the notebook from 1, as in a `FailingCell`; it is 0 before the
    first. `line` is the cell's first line that is not a comment. `stages` has the counts of a Run,
    ``{"fetch": {"done": 88, "retried": 3, "dead": 0}}``, and `open` is the number of messages
    without an outcome. They are empty and None if the notebook has no Run.
    """

    done: int = 0
    total: int = 0
    number: int = 0
    line: str = ""
    stages: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    open: int | None = None


def read_stage_counts(path: Path) -> dict[str, Any]:
    """Return `stages` and `open` of a `CheckProgress` from the file at *path*; {} without one.

    Values of another form are left out: a check must not fail because of its progress display.
    """
    try:
        # Reading a pipe with that name would block for ever.
        if not path.is_file() or path.stat().st_size > MAX_PROGRESS_BYTES:
            return {}
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(document, dict):
        return {}
    stages = document.get("stages")
    named = list(stages.items())[:MAX_STAGES] if isinstance(stages, dict) else []
    found: dict[str, Any] = {"stages": {name: _counts(each) for name, each in named}}
    if _is_count(document.get("open")):
        found["open"] = document["open"]
    return found


def _counts(stage: object) -> dict[str, int]:
    pairs = stage.items() if isinstance(stage, dict) else ()
    return {name: count for name, count in pairs if _is_count(count)}


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**15
