"""``mousetrap topology``: what a flow needs on a broker, as a definitions file."""

from __future__ import annotations

import json as json_module
import sys
from shlex import join
from typing import Annotated

import typer

from mousetrap.cli.console import print_line, print_message, print_table
from mousetrap.cli.find_stage import find_flow, parse_delays
from mousetrap.cli.options import Json
from mousetrap.flows.definitions import Definitions, definitions
from mousetrap.settings import Settings

Names = Annotated[
    list[str],
    typer.Argument(
        metavar="STAGE",
        help="Stages (fetch, process, module:attribute), a module of stages, or a list of them.",
    ),
]


def topology(
    names: Names,
    user: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Put the permissions of this user into the file."),
    ] = None,
    table: Annotated[
        bool, typer.Option("--table", help="Print a table for people; the default on a terminal.")
    ] = False,
    retry_delays: Annotated[
        str | None,
        typer.Option(metavar="SECONDS", help="As of work, in place of the stages': 0.2,1,5"),
    ] = None,
    delay: Annotated[
        list[float] | None,
        typer.Option(metavar="SECONDS", help="Of messages that are sent later; repeat it."),
    ] = None,
    json: Json = False,
) -> None:
    """Print what a flow needs on a broker: queues, exchanges, bindings, arguments, permissions.

    The output is a definitions file for an administrator of RabbitMQ, who imports it (rabbitmqctl
    import_definitions, or the management UI). Workers then need no permission to declare anything.
    What exists already is not changed by the import. Nothing here connects to a broker.

    The permissions are in the file only with --user, because an import replaces those that the user
    has. They are enough for `work`, `send`, `peek`, `drain` and `dead`; to make runs and checks, a
    user must be allowed to configure a prefix as well.

    Retry queues are those of the stages' retry delays; if workers are started with other
    --retry-delays, give them here, too. A message that is sent with a delay waits in a queue for
    that delay: name each with --delay, or such a message is refused to a user who declares nothing.
    MOUSETRAP_NAMESPACE and MOUSETRAP_QUEUE_TYPE count as for `work`. Queues with declare=False are
    expected to exist, and not in the file.

    Example: mousetrap topology my_flow

    Example: mousetrap topology my_flow:parse my_flow:store --user worker > definitions.json
    """
    settings = Settings.from_environment()
    waits = None if retry_delays is None else parse_delays(retry_delays)
    needed = definitions(find_flow(names), settings, retry_delays=waits, delays=delay or ())
    if json or not (table or sys.stdout.isatty()):
        print_line(json_module.dumps(needed.as_file(settings.vhost, user), indent=2))
    else:
        _print_table(needed, settings)
    for each in needed.existing:
        print_message(f"expected to exist, and not in the file: {each}")
    permissions = ["-p", settings.vhost, user or "USER", *needed.permissions.values()]
    if user is None:
        command = join(["rabbitmqctl", "set_permissions", *permissions])
        print_message(f"permissions: {command}", is_folded=False)


def _print_table(needed: Definitions, settings: Settings) -> None:
    rows: list[tuple[str, str, str]] = []
    for each in needed.queues.values():
        given = [f"{name}={value!r}" for name, value in each.arguments.items()]
        rows.append(("queue", each.name, ", ".join(given)))
    rows += [("exchange", each.name, each.type) for each in needed.exchanges.values()]
    rows += [("binding", f"{e.exchange} → {e.queue}", f"key {e.key!r}") for e in needed.bindings]
    rows += [("permission", name, pattern) for name, pattern in needed.permissions.items()]
    print_table(("kind", "name", "details"), rows, f"vhost {settings.vhost}", prose=["details"])
