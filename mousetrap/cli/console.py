"""What people see: nothing from the network acts on the terminal, data goes to stdout alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from mousetrap.display.safe_text import safe
from mousetrap.runtime import clock, threads

WIDTH = 200  # characters of a body in a table
SHOWN_AFTER = 2.0  # seconds; what is over sooner needs no bar
REPORT_EVERY = 10.0  # seconds between two plain lines where there is no terminal


def out() -> Console:
    """The console for results."""
    return Console(file=sys.stdout, highlight=False, soft_wrap=not sys.stdout.isatty())


def err() -> Console:
    """The console for everything else: progress, remarks, errors."""
    return Console(file=sys.stderr, highlight=False, soft_wrap=True)


def say(line: str) -> None:
    """Tell people what is going on."""
    err().print(Text(safe(line)))


def complain(text: str) -> None:
    """Print an error: what happened and what to do next; lines stay lines."""
    lines = [safe(line) for line in text.splitlines()]
    err().print(Text.assemble(("error: ", "bold red"), "\n".join(lines)))


def print_json(value: object) -> None:
    """Print *value* as one line of JSON."""
    sys.stdout.write(json.dumps(value, ensure_ascii=True, default=str) + "\n")
    sys.stdout.flush()


def print_table(columns: Iterable[str], rows: Iterable[Iterable[object]], title: str = "") -> None:
    """Print a table; every cell is made safe."""
    table = Table(title=Text(safe(title)) if title else None, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(safe(cell)) for cell in row))
    out().print(table)


def print_findings(findings: Iterable[tuple[str, str, str, str]]) -> None:
    """Print a line for each finding (mark, what, text, fix), and what to do below it."""
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


@contextmanager
def progress(
    what: str, total: int | None = None, *, hidden: bool = False
) -> Iterator[Callable[..., None]]:
    """Show how far a thing is once it takes long; yields ``advance(done, total=None, note="")``.

    On a terminal that is a bar, elsewhere a plain line now and then. *hidden*: not at all. The
    note says what goes on just now.
    """
    console = err()
    if hidden:
        yield lambda _done, _total=None, _note="": None
    elif console.is_terminal:
        with _bar(safe(what), total, console) as advance:
            yield advance
    else:
        yield _reporter(what, total)


def new_bar(console: Console) -> Progress:
    """Return a bar that fits on a line; its tasks have a field ``note``."""
    # Rich would take stdout for itself, too, and print what is meant for a file on the terminal.
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(15),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", markup=False, table_column=_one_line()),
        console=console,
        transient=True,
        redirect_stdout=False,
        expand=True,
    )


def _one_line() -> Column:
    return Column(no_wrap=True, overflow="ellipsis", ratio=1)


@contextmanager
def _bar(what: str, total: int | None, console: Console) -> Iterator[Callable[..., None]]:
    bar = new_bar(console)
    task = bar.add_task(what, total=total, note="")
    lock, state = threads.Lock(), "waiting"

    def start() -> None:
        nonlocal state
        with lock:
            if state == "waiting":
                state = "shown"
                bar.start()

    def advance(done: int, total: int | None = None, note: str = "") -> None:
        bar.update(task, completed=done, total=total, note=safe(note))

    timer = threads.Timer(SHOWN_AFTER, start)
    timer.daemon = True
    timer.start()
    try:
        yield advance
    finally:
        timer.cancel()
        with lock:
            if state == "shown":
                bar.stop()
            state = "over"


def _reporter(what: str, total: int | None) -> Callable[..., None]:
    due = clock.monotonic() + SHOWN_AFTER

    def advance(done: int, of: int | None = None, note: str = "") -> None:
        nonlocal due
        if (now := clock.monotonic()) > due:
            due = now + REPORT_EVERY
            whole = of or total
            count = f"{done:,} of {whole:,}" if whole else f"{done:,}"
            say(f"{what}: {count}" + (f"; {note}" if note else ""))

    return advance


def readable(value: Any) -> str:
    """Return *value* as people read it."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {readable(each)}" for key, each in value.items()) or "–"
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
