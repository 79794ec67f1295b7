"""Output of the commands: results on stdout, everything else on stderr, all text escaped."""

from __future__ import annotations

import json
import select
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mousetrap.display.formats import number
from mousetrap.display.safe_text import safe
from mousetrap.runtime.postponed_interrupts import PostponedInterrupts

BODY_WIDTH = 200  # characters of a body in a table
PIECE = 512  # characters; a pipe that takes anything takes 4,096 bytes without blocking (POSIX)


def out() -> Console:
    """Return the console for results."""
    return Console(file=sys.stdout, highlight=False, soft_wrap=not sys.stdout.isatty())


def err() -> Console:
    """Return the console for everything else: progress, messages, errors."""
    return Console(file=sys.stderr, highlight=False, soft_wrap=True)


def print_message(line: str) -> None:
    """Print a line about what the command does."""
    err().print(Text(safe(line)))


def print_error(text: str) -> None:
    """Print an error: what happened and what to do next; line breaks are kept."""
    lines = [safe(line) for line in text.splitlines()]
    err().print(Text.assemble(("error: ", "bold red"), "\n".join(lines)))


def print_json(value: object, interrupts: PostponedInterrupts | None = None) -> None:
    """Print *value* as one line of JSON; for *interrupts* see `print_line`."""
    print_line(json.dumps(value, ensure_ascii=True, default=str), interrupts)


def print_line(line: str, interrupts: PostponedInterrupts | None = None) -> None:
    """Print *line* on stdout, at once.

    With *interrupts* a signal ends the wait for a reader that does not read, and never comes
    between the last character and the caller's next step: a line is printed whole and then the
    caller goes on, or it raises.
    """
    text = line + "\n"
    pipe = _file_number()
    if interrupts is None or pipe is None:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    for start in range(0, len(text), PIECE):
        with interrupts.allowed():
            select.select([], [pipe], [])
        sys.stdout.write(text[start : start + PIECE])
        sys.stdout.flush()


def _file_number() -> int | None:
    """Return the number of stdout's file, if one can wait until it takes more."""
    try:
        return None if sys.platform == "win32" else sys.stdout.fileno()
    except (OSError, ValueError):  # replaced by an object in memory
        return None


def print_table(columns: Iterable[str], rows: Iterable[Iterable[object]], title: str = "") -> None:
    """Print a table; every cell is escaped."""
    table = Table(title=Text(safe(title)) if title else None, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(safe(cell)) for cell in row))
    out().print(table)


def print_findings(findings: Iterable[tuple[str, str, str, str]]) -> None:
    """Print a line for each finding (mark, what, text, fix), with the fix below it."""
    for mark, what, text, fix in findings:
        style = "bold red" if mark.isupper() else ""
        lines = [*text.splitlines(), *(f"→ {line}" for line in fix.splitlines())]
        out().print(
            Text.assemble((f"{safe(mark):<6} ", style), f"{safe(what):<12} {safe(lines[0])}")
        )
        for line in lines[1:]:
            out().print(Text(f"{'':<20}{safe(line)}"))


def print_pairs(pairs: dict[str, Any]) -> None:
    """Print names and values below each other."""
    grid = Table.grid(padding=(0, 2))
    for name, value in pairs.items():
        grid.add_row(Text(safe(name), style="bold"), Text(safe(readable(value))))
    out().print(grid)


def readable(value: Any) -> str:
    """Return *value* as text for people: ``1,000``, ``0.125``, ``done 3, dead 0``."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {readable(each)}" for key, each in value.items()) or "–"
    if isinstance(value, float):
        return number(value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
