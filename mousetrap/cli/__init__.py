"""The command line: ``mousetrap COMMAND --help`` explains each command with an example.

Output goes through `mousetrap.cli.console`, or `mousetrap.display.progress` while something runs.
Both escape what comes from the network (bodies, reasons, names). The exit codes are those of
`mousetrap.cli.errors`.
"""

from __future__ import annotations

import io
import sys

from mousetrap.cli import (
    broker,
    check,
    dead,
    describe,
    doctor,
    extract,
    queues,
    send,
    sweep,
    topology,
    work,
)
from mousetrap.cli.errors import EXIT_CODES, handle_signals, new_app
from mousetrap.cli.help import NotebookCommand

app = new_app(
    "Prototype RabbitMQ flows in Jupyter, ship the same functions as workers, prove that it works.",
    epilog=EXIT_CODES,
)

app.command()(check.demo)
app.command("check", cls=NotebookCommand)(check.check_notebooks)
app.command()(work.work)
app.command()(describe.describe)
app.command()(send.send)
app.command("queues")(queues.show_queues)
app.command("peek")(queues.peek_queue)
app.command("drain")(queues.drain_queue)
app.command()(topology.topology)
app.command()(extract.extract)
app.command()(sweep.sweep)
app.command()(doctor.doctor)
app.add_typer(dead.app, name="dead")
app.add_typer(broker.app, name="broker")
app.command()(broker.version)


def main() -> None:
    """Run the command line; `pyproject.toml` installs it as ``mousetrap``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # an old code page cannot show every body
            stream.reconfigure(errors="backslashreplace")
    handle_signals()
    app(prog_name="mousetrap")
