"""``mousetrap doctor``."""

from __future__ import annotations

from dataclasses import asdict

import typer

from mousetrap.cli.commands import FIRST_STEPS
from mousetrap.cli.console import print_error, print_findings, print_json, print_message
from mousetrap.cli.errors import ExitCode
from mousetrap.cli.options import Json

_MARKS = {"good": "ok", "bad": "WRONG", "note": "note"}


def doctor(json: Json = False) -> None:
    """Check the setup, from the settings to the queues, and print a fix for each problem.

    Checks: the settings and their variables; each address that the host's name stands for; what
    answers there; the login, the vhost, alarms, and the user's permissions, by using them; whether
    the notebook kernel, papermill and pytest run an interpreter that can import mousetrap; whether
    the other project of this name is installed; what killed runs have left behind. Changes
    nothing. Exit code 1 if something is wrong.

    Example: RABBITMQ_HOST=broker.example mousetrap doctor
    """
    from mousetrap.doctor import examine

    findings = list(examine())
    if json:
        print_json([asdict(each) for each in findings])
    else:
        print_findings((_MARKS[each.state], each.what, each.text, each.fix) for each in findings)
    if wrong := [each.what for each in findings if each.state == "bad"]:
        print_error(f"wrong: {', '.join(dict.fromkeys(wrong))}; the fix is below each")
        raise typer.Exit(ExitCode.FAILED)
    if not json:
        steps = [f"mousetrap {name} ({why})" for name, why in FIRST_STEPS.items()]
        print_message(f"nothing is wrong; next: {', '.join(steps[1:])}")
