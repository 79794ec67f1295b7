"""``mousetrap demo`` and ``mousetrap check``: run notebooks and report whether they pass."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mousetrap import broker as brokers
from mousetrap.cli.console import print_error, print_json, print_message, print_table
from mousetrap.cli.errors import ExitCode, code_of, new_app
from mousetrap.cli.grid import run_grid
from mousetrap.cli.help import NotebookCommand
from mousetrap.cli.import_path import import_from_here, import_variables
from mousetrap.cli.options import Json, Kind, finite
from mousetrap.cli.progress import watch_notebook
from mousetrap.cli.summary import print_summary
from mousetrap.errors import CheckError, SettingsError
from mousetrap.runtime.bundled_files import PACKAGE, bundled_folder

if TYPE_CHECKING:
    from mousetrap.check import CheckResult, Parameter

Parameters = Annotated[
    list[str] | None,
    typer.Option(
        "-p", "--parameter", metavar="NAME=VALUE", help="A notebook parameter; repeatable."
    ),
]
Notebooks = Annotated[list[Path], typer.Argument(metavar="NOTEBOOK")]
Output = Annotated[
    Path | None,
    typer.Option(
        help="The executed copy; default: _build/ beside the notebook. - is standard output."
    ),
]
Grid = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=V1,V2,...",
        help="Run it at each of these values; repeatable, for the product of all.",
    ),
]
ReportFolder = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Write index.html, results.json, junit.xml and the executed copies there. With "
        "--grid or --parallel always: by default to _build/NAME.grid beside the notebook, "
        "for several notebooks to _build/report.",
    ),
]
Deadline = Annotated[
    float, typer.Option(callback=finite, help="Seconds for the whole run of a notebook.")
]
TotalDeadline = Annotated[
    float,
    typer.Option(callback=finite, help="Seconds for all runs of a grid or report together."),
]
ShowParameters = Annotated[
    bool, typer.Option("--parameters", help="List the parameters as a table and end.")
]

app = new_app("")  # of `check`, whose help has the parameters of its notebooks


def demo(
    broker: Kind = None,
    jobs: Annotated[int | None, typer.Option(min=0, help="How many jobs to send.")] = None,
    parameters: Parameters = None,
    deadline: Deadline = 300.0,
    json: Json = False,
) -> None:
    """Run the fetch → process pipeline through a broker and report the outcome of every job.

    Example: mousetrap demo --jobs 500 -p failure_rate=0.2
    """
    from mousetrap.check import parse_parameters

    notebook = bundled_folder("notebooks") / "check_pipeline.ipynb"
    given = parse_parameters(parameters or [])
    if jobs is not None:
        given["jobs"] = str(jobs)
    with brokers.ensure(broker, log=print_message) as found:
        _run(notebook, given, _demo_output(notebook), deadline, found.environment(), json)


@app.command("check", cls=NotebookCommand)
def check_notebooks(
    notebooks: Notebooks,
    parameters: Parameters = None,
    output: Output = None,
    grid: Grid = None,
    parallel: Annotated[int, typer.Option(min=1, max=64, help="How many runs at a time.")] = 1,
    report: ReportFolder = None,
    deadline: Deadline = 300.0,
    total_deadline: TotalDeadline = 3600.0,
    broker: Kind = None,
    show_parameters: ShowParameters = False,
    json: Json = False,
) -> None:
    """Run notebooks from first cell to last under strict rules; exit code 1 if one does not pass.

    An unknown, mistyped or secret-like parameter is an error before a kernel starts. The executed
    copy is always kept. Notebooks can import from the current folder. If a notebook is named, this
    help also lists its parameters.

    With a grid, a report, or several runs at a time, all points are validated first, each runs in a
    namespace of its own, and a failure does not stop the others.

    Example: mousetrap check notebooks/check_pipeline.ipynb -p jobs=500

    Example: mousetrap check notebooks/check_pipeline.ipynb --grid prefetch=1,10,100 --grid
    jobs=100,1000 --parallel 2
    """
    from mousetrap.check import parse_axes, parse_parameters
    from mousetrap.check.copy_place import is_standard_output
    from mousetrap.check.parameters import skip_slow_imports

    skip_slow_imports()
    if show_parameters:
        _show_parameters(notebooks, json)
        return
    is_grid = bool(grid) or report is not None or parallel > 1
    if output is not None and (is_grid or len(notebooks) > 1):
        raise SettingsError("--output is for one run: leave it out; --report names a folder")
    if json and is_standard_output(output):
        raise SettingsError("--json and --output - both write to standard output: leave one out")
    given, axes = parse_parameters(parameters or []), parse_axes(grid or [])
    with _broker_environment(broker) as environment:
        if is_grid:
            code = run_grid(
                notebooks, axes, given, parallel=parallel, deadline=deadline,
                total_deadline=total_deadline, folder=report, environment=environment, json=json,
            )  # fmt: skip
        else:
            code = _run_each(notebooks, given, output, deadline, environment, json)
    raise typer.Exit(code)


@contextmanager
def _broker_environment(kind: str | None) -> Iterator[dict[str, str]]:
    """Start a broker of *kind*, if one is asked for; yield the variables for the kernels."""
    import_from_here()  # where functions that the notebook marks are looked for
    if kind is None:  # the notebook itself calls `ensure`, if it needs a broker
        yield import_variables()
        return
    with brokers.ensure(kind, log=print_message) as broker:
        yield broker.environment() | import_variables()


def _run_each(
    notebooks: list[Path],
    parameters: Mapping[str, object],
    output: Path | None,
    deadline: float,
    environment: Mapping[str, str],
    json: bool,
) -> ExitCode:
    """Run the notebooks one after the other; return the highest exit code."""
    code = ExitCode.OK
    for notebook in notebooks:
        try:
            _run(notebook, parameters, output, deadline, environment, json)
        except CheckError as error:
            print_error(str(error))
            code = max(code, code_of(error))
    return code


def _run(
    notebook: Path,
    parameters: Mapping[str, object],
    output: Path | None,
    deadline: float,
    environment: Mapping[str, str],
    json: bool,
) -> None:
    """Run *notebook* and show its summary, which a failed run has as well."""
    from mousetrap.check import check, read
    from mousetrap.check.copy_place import is_standard_output

    print_message(f"running {_short(notebook)}")
    try:
        with watch_notebook(notebook.name) as on_progress:
            result = check(notebook, parameters, output=output, deadline=deadline,
                           environment=environment, on_progress=on_progress)  # fmt: skip
    except CheckError as error:
        if error.output is not None:
            _show(read(error.output), json)
        raise
    if not is_standard_output(output):  # then standard output is for the copy alone
        _show(result, json)
    print_message(f"passed: {_short(notebook)} in {result.seconds:.1f} s")
    print_message(f"executed notebook: {_short(result.output)}")


def _show(result: CheckResult, json: bool) -> None:
    if json:
        print_json(_as_dict(result))
    elif result.summary is not None:
        print_summary(result.summary)


def _show_parameters(notebooks: list[Path], json: bool) -> None:
    from mousetrap.check import parameters_of

    found = {notebook: parameters_of(notebook) for notebook in notebooks}
    if json:
        print_json(
            {
                str(notebook): [asdict(each) | _masked(each) for each in parameters]
                for notebook, parameters in found.items()
            }
        )
        return
    for notebook, parameters in found.items():
        rows = ((each.name, each.type or "any", each.default_text, each.help)
                for each in parameters)  # fmt: skip
        print_table(("name", "type", "default", "help"), rows, str(notebook), prose=["help"])


def _masked(parameter: Parameter) -> dict[str, object]:
    return {"default": parameter.default_text} if parameter.is_secret else {}


def _demo_output(notebook: Path) -> Path | None:
    """Return where the demo's executed copy goes: in a checkout beside the notebook, else here."""
    if not notebook.is_relative_to(PACKAGE):
        return None
    here = Path.cwd()
    folder = here if os.access(here, os.W_OK) else Path(tempfile.mkdtemp(prefix="mousetrap-demo-"))
    return folder / "_build" / notebook.name


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _as_dict(result: CheckResult) -> dict[str, object]:
    return {
        "notebook": str(result.notebook),
        "output": str(result.output),
        "passed": result.passed,
        "parameters": result.parameters,
        "seconds": result.seconds,
        "cells": result.cells,
        "error": result.error,
        "summary": result.summary,
    }
