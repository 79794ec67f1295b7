"""Output of the commands: results on stdout, everything else on stderr, all text escaped."""

from __future__ import annotations

import json
import re
import select
import sys
import textwrap
from collections.abc import Collection, Iterable
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mousetrap.display.formats import UNKNOWN, number
from mousetrap.display.safe_text import safe
from mousetrap.runtime.postponed_interrupts import PostponedInterrupts

BODY_WIDTH = 200  # characters of a body in a table
MIN_PROSE = 20  # characters; a column of prose is not narrower
COLUMN_GAP = 3  # characters between two columns
PIECE = 512  # characters; a pipe that takes anything takes 4,096 bytes without blocking (POSIX)

_NUMBER = re.compile(  # also with a unit, as of an age, and an unknown one
    r"[–?]|-?[\d.,]+\+?( (B|kB|MB|GB|TB|µs|ms|s|min|h|days|%|per s))?"
)


def out() -> Console:
    """Return the console for results."""
    return Console(file=sys.stdout, highlight=False, soft_wrap=not sys.stdout.isatty())


def err() -> Console:
    """Return the console for everything else: progress, messages, errors."""
    return Console(file=sys.stderr, highlight=False, soft_wrap=True)


def print_message(line: str, *, is_folded: bool = True) -> None:
    """Print a line about what the command does; one with a command to copy is not *is_folded*."""
    console = err()
    lines = _folded(safe(line), console) if is_folded else [safe(line)]
    console.print(Text("\n".join(lines)))


def print_error(text: str) -> None:
    """Print an error: what happened and what to do next; line breaks are kept."""
    console = err()
    lines = [
        part for line in f"error: {text}".splitlines() for part in _folded(safe(line), console)
    ]
    shown = Text("\n".join(lines))
    shown.stylize("bold red", 0, len("error: "))
    console.print(shown)


def _folded(line: str, console: Console, indent: int | None = None) -> list[str]:
    """Return *line* as lines that fit a terminal; a word that does not, as an address, stays whole.

    Those after the first begin after *indent* characters, by default as many as the first. What is
    no terminal gets the line as it is.
    """
    if not console.is_terminal or len(line) <= console.width:
        return [line]
    if indent is None:
        indent = len(line) - len(line.lstrip(" "))
    folded = textwrap.wrap(
        line, max(MIN_PROSE, console.width), subsequent_indent=" " * indent,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return folded or [line]


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


def print_table(
    columns: Iterable[str],
    rows: Iterable[Iterable[object]],
    title: str = "",
    *,
    prose: Collection[str] = (),
) -> None:
    """Print a table; every cell is escaped, and numbers are aligned at their right ends.

    Only the columns *prose* are folded: names, ids and addresses stay whole. If it does not fit
    then, the terminal itself breaks the lines. A file or a pipe gets one line for each row.
    """
    heads = list(columns)
    cells = [[_cell(value) for value in row] for row in rows]
    console = out()
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    needed = 0
    for n, head in enumerate(heads):
        values = [row[n] for row in cells if row[n]]
        is_folded = head in prose and console.is_terminal
        is_number = bool(values) and all(map(_NUMBER.fullmatch, values))
        table.add_column(
            safe(head),
            justify="right" if is_number else "left",
            no_wrap=not is_folded,
            overflow="fold",
            min_width=None if is_folded else max(map(cell_len, [head, *values])),
        )
        widest = max(map(cell_len, [head, *values]))
        needed += (min(MIN_PROSE, widest) if is_folded else widest) + COLUMN_GAP
    for row in cells:
        table.add_row(*map(Text, row))
    if title:
        console.print(Text(safe(title), style="bold"), soft_wrap=True)
    console.width = max(console.width, needed)
    console.print(table, crop=False)


def _cell(value: object) -> str:
    if value is None:
        return UNKNOWN
    if isinstance(value, float):
        return number(value)
    return f"{value:,}" if type(value) is int else safe(value)


def print_findings(findings: Iterable[tuple[str, str, str, str]]) -> None:
    """Print a line for each finding (mark, what, text, fix), with the fix below it."""
    for mark, what, text, fix in findings:
        style = "bold red" if mark.isupper() else ""
        lines = [*text.splitlines(), *(f"→ {line}" for line in fix.splitlines())]
        head = f"{safe(mark):<6} {safe(what):<12} "
        shown = [
            f"{head}{safe(lines[0])}",
            *(f"{'':<{len(head)}}{safe(line)}" for line in lines[1:]),
        ]
        console = out()
        folded = Text(
            "\n".join(part for line in shown for part in _folded(line, console, len(head)))
        )
        folded.stylize(style, 0, len(mark))
        console.print(folded, soft_wrap=True)


def print_pairs(pairs: dict[str, Any]) -> None:
    """Print names and values below each other."""
    console = out()
    width = max((cell_len(safe(name)) for name in pairs), default=0) + COLUMN_GAP
    for name, value in pairs.items():
        first, *more = _folded(f"{'':<{width}}{safe(readable(value))}", console)
        lines = [f"{safe(name):<{width}}{first[width:]}", *more]
        console.print(Text("\n".join(lines)), soft_wrap=True)


def readable(value: Any) -> str:
    """Return *value* as text for people: ``1,000``, ``0.125``, ``done 3, dead 0``."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {readable(each)}" for key, each in value.items()) or "–"
    if isinstance(value, float):
        return number(value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
