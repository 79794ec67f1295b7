"""How far checks are, while they run: what a person sees on a terminal, or reads in a log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mousetrap.cli import console
from mousetrap.cli.console import err, new_bar, progress, say
from mousetrap.display.safe_text import safe
from mousetrap.runtime import clock

if TYPE_CHECKING:
    from rich.progress import TaskID

    from mousetrap.check import CheckProgress, GridProgress, PointResult

NAME = 40  # characters of a point's name beside its bar; a guess: leaves as much for the note
LINE = 25  # characters of a cell's first line before the counts of stages; a guess


@contextmanager
def watch_notebook(name: str) -> Iterator[Callable[[CheckProgress], None]]:
    """Show one run; yields what `mousetrap.check.check` calls as ``on_progress``."""
    with progress(f"{name}: cells") as advance:
        yield lambda seen: advance(seen.done, seen.total, note_of(seen))


@contextmanager
def watch_grid() -> Iterator[Callable[[GridProgress], None]]:
    """Show many; yields what `mousetrap.check.check_grid` calls as ``on_progress``.

    What has ended is a line each. On a terminal there is a bar below for the whole and one for
    each that runs, elsewhere a plain line for each now and then.
    """
    console = err()
    if not console.is_terminal:
        yield _Log().tell
        return
    with new_bar(console) as bar:
        whole = bar.add_task("all", total=None, note="")
        tasks: dict[int, TaskID] = {}
        told = 0

        def tell(seen: GridProgress) -> None:
            nonlocal told
            for result in seen.ended[told:]:
                console.print(safe(ended(result)), markup=False)
            told = len(seen.ended)
            bar.update(whole, completed=told, total=seen.total)
            running = {point.number: (point, each) for point, each in seen.running}
            for number in [number for number in tasks if number not in running]:
                bar.remove_task(tasks.pop(number))
            for number, (point, each) in running.items():
                if number not in tasks:
                    name = safe(point.name, NAME)
                    tasks[number] = bar.add_task(name, total=None, note="")
                bar.update(
                    tasks[number], completed=each.done, total=each.total or None,
                    note=safe(note_of(each)),
                )  # fmt: skip

        yield tell


def note_of(seen: CheckProgress) -> str:
    """Return what goes on: ``cell 18: with send(); fetch 88 done, 3 retried; 12 open``."""
    # Where stages count they tell more than the line that waits for them.
    line = safe(seen.line, LINE if seen.stages else None)
    words = [f"cell {seen.number}: {line}"] if seen.number else ["starting a kernel"]
    for stage, counts in seen.stages.items():
        # what happened at all; and what is done, be it nothing
        shown = [f"{n:,} {name}" for name, n in counts.items() if n or name == "done"]
        words.append(f"{stage} {', '.join(shown)}" if shown else stage)
    if seen.open is not None:
        words.append(f"{seen.open:,} open")
    return "; ".join(words)


def ended(result: PointResult) -> str:
    """Return how a point ended, on a line."""
    if not result.begun:
        return f"{result.verdict}: {result.name}"
    return f"{result.verdict}: {result.name} in {result.check.seconds:.1f} s"


class _Log:
    """Plain lines: each point as it ends, and now and then what those do that run."""

    def __init__(self) -> None:
        self._told = 0
        self._due = clock.monotonic() + console.REPORT_EVERY

    def tell(self, seen: GridProgress) -> None:
        for result in seen.ended[self._told :]:
            self._told += 1
            say(f"{self._told} of {seen.total:,} {ended(result)}")
        if clock.monotonic() > self._due:
            self._due = clock.monotonic() + console.REPORT_EVERY
            for point, each in seen.running:
                say(f"{point.name}: cells: {each.done} of {each.total}; {note_of(each)}")
