"""``mousetrap check --grid``: runs many points and prints one report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mousetrap.cli.console import print_error, print_json, print_message, print_table, readable
from mousetrap.cli.errors import ExitCode
from mousetrap.cli.progress import watch_grid
from mousetrap.errors import CheckError

if TYPE_CHECKING:
    from mousetrap.check import GridResult

MAX_ERRORS = 5  # printed; a guess: the page has them all


def run_grid(
    notebooks: Sequence[Path],
    axes: Mapping[str, Sequence[str]],
    parameters: Mapping[str, str],
    *,
    parallel: int,
    deadline: float,
    total_deadline: float,
    folder: Path | None,
    environment: Mapping[str, str],
    json: bool,
) -> ExitCode:
    """Run all points and print their results and the address of the page."""
    from mousetrap.check import check_grid, read_results
    from mousetrap.check.grid import default_folder

    try:
        with watch_grid() as on_progress:
            grid = check_grid(
                notebooks, axes, parameters, parallel=parallel, deadline=deadline,
                total_deadline=total_deadline, folder=folder, environment=environment,
                on_progress=on_progress,
            )  # fmt: skip
    except KeyboardInterrupt:
        with suppress(CheckError):  # the interrupt came before anything ran
            _show(read_results(folder or default_folder(notebooks)), json)
        raise
    _show(grid, json)
    if grid.ended:
        print_error(grid.ended)
    return ExitCode.OK if grid.passed else ExitCode.FAILED


def _show(grid: GridResult, json: bool) -> None:
    if json:
        print_json(grid.as_dict())
    else:
        rows = grid.rows()
        names = dict.fromkeys(name for row in rows for name in row)
        # The time of each point was printed when it ended, and a terminal is narrow.
        columns = [name for name in names if name != "took" or name in grid.axes]
        print_table(columns, ([_cell(row.get(name)) for name in columns] for row in rows))
    # the end of the whole grid is printed once, not for each point
    failed = [each for each in grid if not each.passed and each.check.error != grid.ended]
    for point in failed[:MAX_ERRORS]:
        print_error(f"{point.name}: {point.check.error}")
    if len(failed) > MAX_ERRORS:
        print_message(f"and {len(failed) - MAX_ERRORS} more: see the report")
    print_message(f"{grid.sentence()} in {grid.seconds:.1f} s")
    print_message(f"report: {grid.page}")


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return "" if value is None else readable(value)
