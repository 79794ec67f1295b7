"""Showing how far a run is, wherever it runs: in a notebook's cell, on a terminal, in a check.

A cell shows one line that changes in place and stays as the saved output. `mousetrap check` reads
the same figures from the file that ``MOUSETRAP_PROGRESS`` names.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mousetrap.runtime import clock
from mousetrap.runtime.atomic_file import write_atomically
from mousetrap.runtime.environment import is_kernel

UPDATE_INTERVAL = 0.25  # seconds between two updates
SHOWN_AFTER = 2.0  # seconds; what is over sooner needs no line
REPORT_EVERY = 10.0  # seconds between two lines where none can be changed


class ProgressLine:
    """Tells about one wait; `update` as often as you like. Threads: one."""

    def __init__(self) -> None:
        self._file = os.environ.get("MOUSETRAP_PROGRESS")
        self._started = clock.monotonic()
        self._due = 0.0
        self._reported = self._started + SHOWN_AFTER - REPORT_EVERY
        self._display: Any = None
        self._is_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._is_shown = False

    def update(
        self, line: str, figures: Mapping[str, Any] | None = None, *, is_last: bool = False
    ) -> None:
        """Show *line* if this takes long, and write *figures*, if any, where they are wanted."""
        now = clock.monotonic()
        if now < self._due and not is_last:
            return
        self._due = now + UPDATE_INTERVAL
        if self._file and figures is not None:
            write_figures(Path(self._file), figures)
        if now - self._started >= SHOWN_AFTER:
            self._show(line, now, is_last)

    def _show(self, line: str, now: float, is_last: bool) -> None:
        if is_kernel():
            data = {"text/plain": line}
            if self._display is None:
                from IPython.display import display

                self._display = display(data, raw=True, display_id=True)  # type: ignore[no-untyped-call, unused-ignore]
            else:
                self._display.update(data, raw=True)
        elif self._is_terminal:
            sys.stderr.write(f"\r{line[:100]:<100}" + "\n" * is_last)
            sys.stderr.flush()
        elif now - self._reported >= REPORT_EVERY or (is_last and self._is_shown):
            self._reported = now
            self._is_shown = True
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()


def write_figures(path: Path, figures: Mapping[str, Any]) -> None:
    """Write *figures* as JSON to *path*; who reads it meanwhile gets the old ones or the new."""
    with suppress(OSError):  # whoever wanted it is gone
        write_atomically(path, json.dumps(figures))
