"""``mousetrap broker up|down|status`` and ``mousetrap version``."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib.metadata import version as version_of
from typing import Annotated

import typer

from mousetrap import __version__
from mousetrap import broker as brokers
from mousetrap.broker import probe
from mousetrap.cli.console import print_json, print_message, print_pairs, print_table
from mousetrap.cli.errors import ExitCode, new_app
from mousetrap.cli.options import Json, Kind, finite
from mousetrap.settings import Settings

app = new_app("Start a broker, stop it, and show which brokers there are.")


@app.command(short_help="Start a broker that stays, unless one answers.")
def up(
    broker: Kind = None,
    timeout: Annotated[
        float, typer.Option(min=0, callback=finite, help="Seconds to wait until it is ready.")
    ] = 120.0,
    json: Json = False,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Run one in memory, in this process, until Ctrl-C.")
    ] = False,
    with_parent: Annotated[
        bool, typer.Option("--with-parent", help="With --embedded: also end when stdin ends.")
    ] = False,
) -> None:
    """Start a broker that stays, unless one answers already: in Docker, else a private local node.

    Example: mousetrap broker up --broker docker

    Example: mousetrap broker up --embedded
    """
    if embedded:
        brokers.serve(with_parent=with_parent, log=print_message)
        return
    found = brokers.up(broker, timeout=timeout, log=print_message)
    if json:
        print_json({"kind": found.kind, "url": found.settings.url, "broker": str(found)})


@app.command(short_help="Stop what `up` started; its data stay.")
def down(broker: Kind = None) -> None:
    """Stop what `up` started; the next `up` finds its data.

    Example: mousetrap broker down
    """
    stopped = brokers.down(broker, log=print_message)
    print_message(
        f"stopped: {', '.join(stopped)}"
        if stopped
        else "no broker that mousetrap started was running"
    )


@app.command(short_help="Show which kinds of broker run, and where.")
def status(json: Json = False) -> None:
    """Show the status of each kind of broker; exit code 3 if none runs.

    Example: mousetrap broker status --json
    """
    kinds = brokers.status()
    if json:
        print_json([asdict(each) for each in kinds])
    else:
        print_table(
            ("kind", "state", "address", "version", "note"),
            ((each.kind,
              "running" if each.is_running else "available" if each.is_available else "–",
              each.address, each.version, each.note) for each in kinds),
            prose=["note"],
        )  # fmt: skip
    if not any(each.is_running for each in kinds):
        raise typer.Exit(ExitCode.NO_BROKER)


def version(json: Json = False) -> None:
    """Print the versions of mousetrap, pika, Python and, if one answers, the broker.

    Example: mousetrap version --json
    """
    settings = Settings.from_environment()
    versions = {
        "mousetrap": __version__,
        "pika": version_of("pika"),
        "python": platform.python_version(),
        "broker": probe.version(settings),
    }
    if json:
        print_json(versions)
    else:
        print_pairs(versions | {"broker": versions["broker"] or f"none at {settings.url}"})
