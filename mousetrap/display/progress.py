"""The one display of progress: in a notebook's cell, on a terminal, or as lines of a log.

A cell shows lines that change in place and stay as the saved output. A terminal shows bars drawn by
Rich. Any other stream gets a line every `REPORT_INTERVAL` seconds. `mousetrap check` reads the same
values from the file that ``MOUSETRAP_PROGRESS`` names.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mousetrap.display.design_tokens import ACCENT_MARK, OK_MARK
from mousetrap.display.notices import print_notice
from mousetrap.display.safe_text import safe
from mousetrap.runtime import clock, forks, threads
from mousetrap.runtime.atomic_file import write_atomically
from mousetrap.runtime.environment import is_kernel

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

UPDATE_INTERVAL = 0.25  # seconds between two updates
SHOWN_AFTER = 2.0  # seconds; a shorter wait shows nothing
REPORT_INTERVAL = 10.0  # seconds between two lines of a log
BAR_WIDTH = 15  # characters


@dataclass(frozen=True)
class Row:
    """One line of the display: a bar if something is counted, otherwise only the note."""

    name: str = ""
    done: int | None = None
    total: int | None = None
    note: str = ""
    key: object = None  # tells rows with the same name apart

    def __str__(self) -> str:
        count = "" if self.done is None else _count(self.done, self.total, " of ")
        head = ": ".join(each for each in (self.name, count) if each)
        return "; ".join(each for each in (head, self.note) if each)


class ProgressDisplay:
    """Shows how far a wait is, once it has taken `SHOWN_AFTER` seconds.

    As a context manager it shows its first row even if no update comes. Without, the last `update`
    says ``is_last=True``. Names and notes may be any text: what acts on a terminal is escaped. With
    *write* it is always the lines of a log, which that function prints. With *takes_stdout* a
    terminal has what is written to standard output above the rows, as what goes to standard error.

    Threads: any for `print`; one for the rest.
    """

    def __init__(
        self,
        name: str = "",
        total: int | None = None,
        *,
        is_hidden: bool = False,
        write: Callable[[str], None] | None = None,
        takes_stdout: bool = False,
    ) -> None:
        self._name, self._total = name, total
        self._file = os.environ.get("MOUSETRAP_PROGRESS")
        self._due = 0.0
        self._view = _NoView() if is_hidden else _LogView(write) if write else _view(takes_stdout)

    def update(
        self, line: str, values: Mapping[str, Any] | None = None, *, is_last: bool = False
    ) -> None:
        """Show *line*, and write *values*, if any, to the file that ``MOUSETRAP_PROGRESS`` names.

        May be called at any rate: at most one call in `UPDATE_INTERVAL` does something.
        """
        now = clock.monotonic()
        if now < self._due and not is_last:
            return
        self._due = now + UPDATE_INTERVAL
        if self._file and values is not None:
            write_values(Path(self._file), values)
        self.show([Row(note=line)])
        if is_last:
            self._view.close(is_last_kept=True)

    def advance(self, done: int, total: int | None = None, note: str = "") -> None:
        """Show that *done* of *total* are done, and what is going on."""
        self.show([Row(self._name, done, total or self._total, note)])

    @property
    def is_live(self) -> bool:
        """Whether it is drawn on a terminal, so that what `show` has *below* is seen."""
        return isinstance(self._view, _TerminalView)

    def show(self, rows: Sequence[Row], below: RenderableType | None = None) -> None:
        """Show *rows* in place of the rows before; a terminal has *below* under them."""
        self._view.show(rows, below)

    def print(self, line: str) -> None:
        """Print a line that stays, above the rows."""
        self._view.print(line)

    def __enter__(self) -> ProgressDisplay:
        self._view.open([Row(self._name, 0, self._total)] if self._name else [])
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the rows from a terminal; a second call does nothing."""
        self._view.close()


class _View(Protocol):
    """Where the rows are shown."""

    def open(self, rows: Sequence[Row], /) -> None: ...
    def show(self, rows: Sequence[Row], below: RenderableType | None = None, /) -> None: ...
    def print(self, line: str, /) -> None: ...
    def close(self, *, is_last_kept: bool = False) -> None: ...


def _view(takes_stdout: bool) -> _View:
    if is_kernel():
        return _CellView()
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    return _TerminalView(takes_stdout) if is_terminal else _LogView()


def _print(line: str) -> None:
    print_notice(safe(line))


class _NoView:
    """Shows nothing."""

    def open(self, rows: Sequence[Row], /) -> None: ...
    def show(self, rows: Sequence[Row], below: RenderableType | None = None, /) -> None: ...
    def print(self, line: str, /) -> None: ...
    def close(self, *, is_last_kept: bool = False) -> None: ...


class _CellView(_NoView):
    """The output of a notebook's cell."""

    def __init__(self) -> None:
        self._shown_at = clock.monotonic() + SHOWN_AFTER
        self._display: Any = None

    def show(self, rows: Sequence[Row], _: RenderableType | None = None, /) -> None:
        if clock.monotonic() < self._shown_at:
            return
        data = {"text/plain": "\n".join(map(str, rows))}
        if self._display is None:
            from IPython.display import display

            self._display = display(data, raw=True, display_id=True)  # type: ignore[no-untyped-call, unused-ignore]  # IPython is untyped where it is installed
        else:
            self._display.update(data, raw=True)

    def print(self, line: str, /) -> None:
        _print(line)


class _LogView:
    """A stream that is no terminal: a line for each row, now and then."""

    def __init__(self, write: Callable[[str], None] = _print) -> None:
        self._write = write
        self._due = clock.monotonic() + SHOWN_AFTER
        self._unprinted: Sequence[Row] = ()
        self._was_shown = False

    def open(self, rows: Sequence[Row], /) -> None:
        """A line about nothing done yet is of no use."""

    def show(self, rows: Sequence[Row], _: RenderableType | None = None, /) -> None:
        self._unprinted = rows
        if (now := clock.monotonic()) >= self._due:
            self._due = now + REPORT_INTERVAL
            self._was_shown = True
            self._print_rows()

    def print(self, line: str, /) -> None:
        self._write(line)

    def close(self, *, is_last_kept: bool = False) -> None:
        if is_last_kept and self._was_shown:
            self._print_rows()

    def _print_rows(self) -> None:
        for row in self._unprinted:
            self._write(str(row))
        self._unprinted = ()


class _TerminalView:
    """Bars at the bottom of a terminal.

    Threads: the timer of `open` starts the bars in a thread of its own.
    """

    def __init__(self, takes_stdout: bool) -> None:
        self._shown_at = clock.monotonic() + SHOWN_AFTER
        self._takes_stdout = takes_stdout
        self._streams = (sys.stdout, sys.stderr)  # which Rich replaces
        self._bars: Any = None
        self._tasks: dict[tuple[str, object], TaskID] = {}
        self._rows: Sequence[Row] = ()
        self._lock = forks.released_in_child(threads.RLock())
        self._is_closed = False
        self._timer: Any = None
        forks.watch(self)

    def forked(self) -> None:
        """Print past the bars, which need locks that a thread of the parent may have held."""
        if self._bars is not None:
            self._bars = None
            sys.stdout, sys.stderr = self._streams

    def open(self, rows: Sequence[Row], /) -> None:
        self._rows = rows
        self._timer = threads.Timer(SHOWN_AFTER, lambda: self.show(self._rows))
        self._timer.daemon = True
        self._timer.start()

    def show(self, rows: Sequence[Row], below: RenderableType | None = None, /) -> None:
        with self._lock:
            self._rows = rows
            is_empty = not rows and below is None
            if self._is_closed or is_empty or clock.monotonic() < self._shown_at:
                return
            if self._bars is None:
                is_counted = bool(rows) and rows[0].done is not None
                self._streams = (sys.stdout, sys.stderr)
                self._bars = _new_bars(is_counted=is_counted, takes_stdout=self._takes_stdout)
            self._bars.below = below
            for gone in self._tasks.keys() - {(row.name, row.key) for row in rows}:
                self._bars.remove_task(self._tasks.pop(gone))
            for row in rows:
                key = (row.name, row.key)
                if key not in self._tasks:
                    self._tasks[key] = self._bars.add_task(safe(row.name), total=None, note="")
                self._bars.update(
                    self._tasks[key], completed=row.done or 0, total=row.total or None,
                    note=safe(row.note),
                )  # fmt: skip
            self._bars.start()  # with its first rows; later calls do nothing

    def print(self, line: str, /) -> None:
        with self._lock:
            if self._bars is None:
                _print(line)
            else:  # the bars draw themselves again below the line
                self._bars.console.print(safe(line), markup=False, emoji=False)

    def close(self, *, is_last_kept: bool = False) -> None:
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            self._is_closed = True
            if self._bars is not None:
                self._bars.stop()
                self._bars = None
                for row in self._rows if is_last_kept else ():
                    _print(str(row))


def _count(done: float, total: float | None, of: str) -> str:
    """Return ``1,200 of 2,000``; nothing while nothing is done and the total is not known."""
    if not total:
        return f"{done:,.0f}" if done else ""
    return f"{done:,.0f}{of}{total:,.0f}"


def _new_bars(*, is_counted: bool, takes_stdout: bool) -> Bars:
    from rich import progress  # not at the top: `import mousetrap` stays light
    from rich.console import Console
    from rich.table import Column
    from rich.text import Text

    note = progress.TextColumn(
        "{task.fields[note]}", markup=False,
        table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
    )  # fmt: skip

    class Count(progress.ProgressColumn):
        def render(self, task: progress.Task) -> Text:
            return Text(_count(task.completed, task.total, "/"))

    class AllBars(progress.Progress):
        below: RenderableType | None = None

        def get_renderables(self) -> Iterator[RenderableType]:
            if self.tasks:
                yield from super().get_renderables()
            if self.below is not None:
                yield self.below

    counted = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(
            BAR_WIDTH, complete_style=ACCENT_MARK, finished_style=OK_MARK, pulse_style=ACCENT_MARK
        ),
        Count(),
        progress.TimeElapsedColumn(),
    )
    return AllBars(
        *(counted if is_counted else ()),
        note,
        console=Console(file=sys.stderr, highlight=False, soft_wrap=True),
        transient=True,
        refresh_per_second=1 / UPDATE_INTERVAL,
        # Rich would take stdout, too, and print data that is meant for a file on the terminal.
        redirect_stdout=takes_stdout,
        expand=True,
    )


def restore_terminal() -> None:
    """Show the cursor again, which bars hide, before this process ends at once.

    For the handler of a signal. To close the bars would wait for locks, which the interrupted
    thread may hold.
    """
    if os.isatty(2):
        os.write(2, b"\r\x1b[K\x1b[?25h")


def write_values(path: Path, values: Mapping[str, Any]) -> None:
    """Write *values* as JSON to *path* in one step: a reader never sees half of them."""
    with suppress(OSError):  # the folder is gone: its reader has ended
        write_atomically(path, json.dumps(values))
