"""``mousetrap new``: makes a project to begin with."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict
from typing import Annotated

import typer

from mousetrap.cli.console import print_json, print_message
from mousetrap.cli.options import Json
from mousetrap.display.formats import counted

_PROGRAMS = ("jupyterlab", "nbmake", "pytest")  # modules of the extra `project`


def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Of folder and package, e.g. my_flow.")
    ],
    minimal: Annotated[
        bool, typer.Option("--minimal", help="Without containers, CI workflow and recorded run.")
    ] = False,
    json: Json = False,
) -> None:
    """Make a project in a new folder NAME: two functions, connected by queues, and all around them.

    notebooks/prototype.ipynb tries the functions out; the package NAME has the same functions, for
    workers; notebooks/check_NAME.ipynb sends rows through them and accounts for each. There are
    tests, one of them a recorded run, containers in deploy/, a CI workflow, and a README with the
    commands. Everything works at once, on the RabbitMQ that RABBITMQ_URL names, or on the embedded
    broker if there is none. Nothing is overwritten.

    Example: mousetrap new my_flow

    Example: mousetrap new my_flow --minimal
    """
    from mousetrap.scaffold import create_project

    made = create_project(name, minimal=minimal)
    if json:
        print_json(asdict(made) | {"folder": str(made.folder)})
        return
    print_message(f"made the folder {made.folder} with {counted(len(made.files), 'file')}; next:")
    steps = [
        (f"cd {made.folder}", ""),
        ("pytest", "runs the tests, the notebook and the check"),
        ("pip install -e .", f"once: lets JupyterLab import {name}"),
        ("jupyter lab notebooks", "begin with prototype.ipynb"),
    ]
    if any(importlib.util.find_spec(each) is None for each in _PROGRAMS):
        steps.insert(1, ("pip install 'mousetrap-mq[project]'", "once: pytest and JupyterLab"))
    width = max(len(command) for command, _ in steps)
    for command, reason in steps:
        line = f"  {command:<{width}}  # {reason}" if reason else f"  {command}"
        print_message(line, is_folded=False)
