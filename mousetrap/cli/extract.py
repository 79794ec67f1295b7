"""``mousetrap extract``: writes the cells of a stage as a module."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mousetrap.cli.console import print_json, print_message
from mousetrap.cli.options import Json


def extract(
    notebook: Annotated[
        Path, typer.Argument(metavar="NOTEBOOK", help="The notebook with the stage.")
    ],
    stage: Annotated[
        str, typer.Option(metavar="NAME", help="Its function; the cells are tagged extract:NAME.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="The module, e.g. my_flow/it.py.")
    ],
    replace: Annotated[
        bool, typer.Option("--replace", help="Overwrite the module if it exists.")
    ] = False,
    json: Json = False,
) -> None:
    """Write the cells of a stage as a module that `mousetrap work` runs, and import it from there.

    The cells stay as the prototype, marked `# same as module:name`; `mousetrap check` fails when
    the two differ. Cells that depend on notebook state are refused.

    Example: mousetrap extract notebooks/mine.ipynb --stage fetch -o my_flow/fetch.py
    """
    from mousetrap.extract import extract as extract_stage

    found = extract_stage(notebook, stage, output, replace=replace)
    if json:
        print_json(asdict(found))
        return
    print_message(f"wrote {found.path}: {', '.join(found.names)}")
    if not found.is_formatted:
        print_message(
            "the module is not formatted, because ruff is not installed: pip install ruff"
        )
    if not found.is_importable:
        print_message(
            f"a kernel in {notebook.absolute().parent} cannot import {found.module}: install it "
            f"(pip install -e .), or start Jupyter where PYTHONPATH names {Path.cwd()}"
        )
    print_message(f"{notebook} imports it now; as a worker: mousetrap work {found.module}:{stage}")
