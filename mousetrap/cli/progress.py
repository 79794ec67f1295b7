"""How far checks are: the rows that `mousetrap check` shows while notebooks run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from mousetrap.cli.live_panel import CheckPanel, drawn
from mousetrap.display import progress
from mousetrap.display.progress import Row
from mousetrap.display.safe_text import safe

if TYPE_CHECKING:
    from mousetrap.check import CheckProgress, GridProgress, PointResult

MAX_NAME = 40  # characters of a point's name beside its bar; a guess: leaves as much for the note
MAX_LINE = 25  # characters of a cell's first line before the counts of stages; a guess


@contextmanager
def watch_notebook(name: str) -> Iterator[Callable[[CheckProgress], None]]:
    """Show the progress of one run; yields the ``on_progress`` of `mousetrap.check.check`."""
    title = f"{name}: cells"
    panel = CheckPanel(name)
    with progress.ProgressDisplay(title) as display:

        def show(seen: CheckProgress) -> None:
            if not (display.is_live and seen.stages):
                display.advance(seen.done, seen.total, describe(seen))
                return
            # the panel below has the counts
            row = Row(title, seen.done, seen.total, describe(replace(seen, stages={}, open=None)))
            display.show([row], drawn(panel.view(seen.stages, seen.open)))

        yield show


@contextmanager
def watch_grid() -> Iterator[Callable[[GridProgress], None]]:
    """Show the progress of many runs; yields the ``on_progress`` of `mousetrap.check.check_grid`.

    Each point that has ended gets a line that stays. Below it are a row for the grid and a row for
    each point that runs.
    """
    with progress.ProgressDisplay() as display:
        printed = 0

        def show(seen: GridProgress) -> None:
            nonlocal printed
            for result in seen.ended[printed:]:
                printed += 1
                display.print(f"{printed} of {seen.total:,} {describe_result(result)}")
            display.show(
                [Row("points", len(seen.ended), seen.total)]
                + [
                    Row(f"{safe(point.name, MAX_NAME)}: cells", each.done, each.total or None,
                        describe(each), key=point.number)
                    for point, each in seen.running
                ]
            )  # fmt: skip

        yield show


def describe(seen: CheckProgress) -> str:
    """Return what goes on: ``cell 18: with send(); fetch 88 done, 3 retried; 12 open``."""
    # The counts of the stages say more than the line that waits for them.
    line = safe(seen.line, MAX_LINE if seen.stages else None)
    words = [f"cell {seen.number}: {line}"] if seen.number else ["starting a kernel"]
    for stage, counts in seen.stages.items():
        # every count that is not zero, and always the number of messages done
        shown = [f"{n:,} {name}" for name, n in counts.items() if n or name == "done"]
        words.append(f"{stage} {', '.join(shown)}" if shown else stage)
    if seen.open is not None:
        words.append(f"{seen.open:,} open")
    return "; ".join(words)


def describe_result(result: PointResult) -> str:
    """Return how a point ended, on one line."""
    if not result.has_started:
        return f"{result.verdict}: {result.name}"
    return f"{result.verdict}: {result.name} in {result.check.seconds:.1f} s"
