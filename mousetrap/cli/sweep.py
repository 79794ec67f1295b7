"""``mousetrap sweep``: away with what killed runs left behind."""

from __future__ import annotations

from dataclasses import asdict

import typer

from mousetrap.cli.console import print_error, print_json, print_message, print_table
from mousetrap.cli.errors import ExitCode
from mousetrap.cli.options import Json
from mousetrap.display.table import age
from mousetrap.settings import Settings


def sweep(json: Json = False) -> None:
    """Delete the queues of runs whose process is gone, and name them; live runs are left alone.

    Knows the runs of this user on this machine. Exit code 1 if something could not be removed; the
    queues of a run expire by themselves as well, ten minutes after their last use.

    Example: mousetrap sweep
    """
    from mousetrap.runs import run_lock

    leftovers = run_lock.sweep(Settings.from_environment())
    if json:
        print_json([asdict(each) for each in leftovers])
    elif leftovers:
        print_table(
            ("run", "process", "age", "queues deleted", "problem"),
            ((each.namespace, each.process, age(each.age), len(each.queues), each.problem)
             for each in leftovers),
        )  # fmt: skip
    else:
        print_message("nothing is left of any run")
    if problems := sum(bool(each.problem) for each in leftovers):
        print_error(f"{problems} of {len(leftovers)} could not be removed: see above")
        raise typer.Exit(ExitCode.FAILED)
