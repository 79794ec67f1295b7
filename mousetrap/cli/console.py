"""Output of the commands: results on stdout, everything else on stderr, all text escaped."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mousetrap.display.safe_text import safe

BODY_WIDTH = 200  # characters of a body in a table


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


def print_json(value: object) -> None:
    """Print *value* as one line of JSON."""
    sys.stdout.write(json.dumps(value, ensure_ascii=True, default=str) + "\n")
    sys.stdout.flush()


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
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
