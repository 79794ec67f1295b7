"""``mousetrap sweep``: deletes the queues that killed runs left behind."""

from __future__ import annotations

from dataclasses import asdict

import typer

from mousetrap.cli.console import print_error, print_json, print_message, print_table
from mousetrap.cli.errors import ExitCode
from mousetrap.cli.options import Json
from mousetrap.display.formats import age
from mousetrap.settings import Settings


def sweep(json: Json = False) -> None:
    """Delete the queues of runs whose process is gone, and list them; live runs stay.

    It finds the runs of this user on this machine, and the namespaces of killed tests. A run whose
    broker cannot be reached is kept for the next sweep. Exit code 1 if something could not be
    deleted.

    A day after their last use the queues of a run expire, except its retry queues and its quorum
    queues: only a sweep deletes those.

    Example: mousetrap sweep
    """
    from mousetrap.runs import run_lock

    stale_runs = run_lock.sweep(Settings.from_environment())
    if json:
        print_json([asdict(each) for each in stale_runs])
    elif stale_runs:
        print_table(
            ("run", "process", "age", "queues deleted", "problem"),
            ((each.namespace, each.process, age(each.age), len(each.queues), each.problem)
             for each in stale_runs),
            prose=["problem"],
        )  # fmt: skip
    else:
        print_message("none: no killed run of this user has left queues behind")
    if problems := sum(bool(each.problem) for each in stale_runs):
        print_error(f"{problems} of {len(stale_runs)} could not be deleted: see above")
        raise typer.Exit(ExitCode.FAILED)
