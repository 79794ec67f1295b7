"""``mousetrap demo`` and ``mousetrap check``: notebooks as proofs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mousetrap.cli.codes import ExitCode, code_of
from mousetrap.cli.options import Json, Kind, finite
from mousetrap.cli.show import complain, print_json, print_pairs, print_table, progress, say
from mousetrap.errors import CheckError, SettingsError
from mousetrap.record import Record

if TYPE_CHECKING:
    from mousetrap.check import CheckResult

Parameters = Annotated[
    list[str] | None,
    typer.Option(
        "-p", "--parameter", metavar="NAME=VALUE", help="A notebook parameter; repeatable."
    ),
]
Deadline = Annotated[
    float, typer.Option(callback=finite, help="Seconds for the whole run of a notebook.")
]


def demo(
    broker: Kind = None,
    jobs: Annotated[int | None, typer.Option(min=0, help="How many jobs to send.")] = None,
    parameters: Parameters = None,
    deadline: Deadline = 300.0,
    json: Json = False,
) -> None:
    """Run the fetch → process pipeline through a real RabbitMQ and account for every job.

    Example: mousetrap demo --jobs 500 -p failure_rate=0.2
    """
    from mousetrap import broker as brokers
    from mousetrap.check import parse_parameters

    notebook = _find_notebook("check_pipeline.ipynb")
    given = parse_parameters(parameters or [])
    if jobs is not None:
        given["jobs"] = str(jobs)
    with brokers.ensure(broker, say=say) as found:
        _run(notebook, given, None, deadline, found.environment(), json)


def check_notebooks(
    notebooks: Annotated[list[Path], typer.Argument(metavar="NOTEBOOK")],
    parameters: Parameters = None,
    output: Annotated[
        Path | None, typer.Option(help="The executed copy; default: _build/ beside the notebook.")
    ] = None,
    deadline: Deadline = 300.0,
    broker: Kind = None,
    show_parameters: Annotated[
        bool, typer.Option("--parameters", help="List the parameters and end.")
    ] = False,
    json: Json = False,
) -> None:
    """Run notebooks from first cell to last under strict rules; exit code 1 if one does not pass.

    An unknown, mistyped or secret-like parameter is an error before a kernel starts. The executed
    copy is always kept.

    Example: mousetrap check notebooks/check_pipeline.ipynb -p jobs=500
    """
    from mousetrap import broker as brokers
    from mousetrap.check import parse_parameters

    if show_parameters:
        _show_parameters(notebooks, json)
        return
    if output is not None and len(notebooks) > 1:
        raise SettingsError("--output is for one notebook: leave it out, or check one at a time")
    given = parse_parameters(parameters or [])
    code = ExitCode.OK
    environment: dict[str, str] = {}
    found = None
    if broker is not None:  # otherwise the notebook itself asks for one, if it needs one
        found = brokers.ensure(broker, say=say)
        environment = found.environment()
    try:
        for notebook in notebooks:
            try:
                _run(notebook, given, output, deadline, environment, json)
            except CheckError as error:
                complain(str(error))
                code = max(code, code_of(error))
    finally:
        if found is not None:
            found.close()
    raise typer.Exit(code)


def _run(
    notebook: Path,
    parameters: Mapping[str, object],
    output: Path | None,
    deadline: float,
    environment: Mapping[str, str],
    json: bool,
) -> None:
    """Run *notebook* and show what came of it, which a failed run leaves as well."""
    from mousetrap.check import check, read

    say(f"running {_short(notebook)}")
    try:
        with progress(f"{notebook.name}: cells") as seen:
            result = check(notebook, parameters, output=output, deadline=deadline,
                           environment=environment, on_cell=seen)  # fmt: skip
    except CheckError as error:
        if error.output is not None:
            _show(read(error.output), json)
        raise
    _show(result, json)
    say(f"passed: {_short(notebook)} in {result.seconds:.1f} s")
    say(f"executed notebook: {_short(result.output)}")


def _show(result: CheckResult, json: bool) -> None:
    if json:
        print_json(_as_dict(result))
    elif result.record is not None:
        names = [each.name for each in fields(Record)]  # in this order; the file has them sorted
        known = {name: result.record[name] for name in names if name in result.record}
        print_pairs(known | result.record)


def _show_parameters(notebooks: list[Path], json: bool) -> None:
    from mousetrap.check import parameters_of

    found = {notebook: parameters_of(notebook) for notebook in notebooks}
    if json:
        print_json(
            {str(notebook): [asdict(each) for each in found[notebook]] for notebook in found}
        )
        return
    for notebook, parameters in found.items():
        rows = ((each.name, each.type or "any", each.default, each.help) for each in parameters)
        print_table(("name", "type", "default", "help"), rows, str(notebook))


def _find_notebook(name: str) -> Path:
    checkout = Path(__file__).parents[2]
    for folder in (Path.cwd(), checkout):
        if (found := folder / "notebooks" / name).is_file():
            return found
    raise SettingsError(
        f"there is no notebooks/{name} here or in {checkout}: the demo belongs to a checkout of "
        f"the repository, so clone it and run `python3 deploy/demo.py` in it"
    )


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
        "record": result.record,
    }
