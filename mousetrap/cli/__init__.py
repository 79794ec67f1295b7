"""The command line: ``mousetrap COMMAND --help`` teaches each.

What is printed for people goes through `mousetrap.cli.console`, because bodies, reasons and names
come from the network. Exit codes are those of `mousetrap.cli.errors`.
"""

from __future__ import annotations

import io
import signal
import sys

from mousetrap.cli import broker, check, dead, doctor, extract, queues, send, sweep, work
from mousetrap.cli.errors import EXIT_CODES, new_app, terminate
from mousetrap.cli.help import NotebookCommand

app = new_app(
    "Prototype RabbitMQ flows in Jupyter, ship the same functions as workers, prove that it works.",
    epilog=EXIT_CODES,
)

app.command()(check.demo)
app.command("check", cls=NotebookCommand)(check.check_notebooks)
app.command()(work.work)
app.command()(send.send)
app.command("queues")(queues.show_queues)
app.command("peek")(queues.peek_queue)
app.command("drain")(queues.drain_queue)
app.command()(extract.extract)
app.command()(sweep.sweep)
app.command()(doctor.doctor)
app.add_typer(dead.app, name="dead")
app.add_typer(broker.app, name="broker")
app.command()(broker.version)


def main() -> None:
    """Run the command line; what `pyproject.toml` installs as ``mousetrap``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # an old code page cannot show every body
            stream.reconfigure(errors="backslashreplace")
    # As Ctrl-C: what was taken is printed, what was started is ended. `work` has a way of its own.
    signal.signal(signal.SIGTERM, terminate)
    app(prog_name="mousetrap")
