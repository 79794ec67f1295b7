"""The command line: ``mousetrap COMMAND --help`` explains each command with an example.

Output goes through `mousetrap.cli.console`, or `mousetrap.display.progress` while something runs.
Both escape what comes from the network (bodies, reasons, names). The exit codes are those of
`mousetrap.cli.errors`.
"""

from __future__ import annotations

import io
import sys

from mousetrap.cli.commands import LazyGroup
from mousetrap.cli.errors import EXIT_CODES, handle_signals, new_app

app = new_app(
    "Prototype RabbitMQ flows in Jupyter, ship the same functions as workers, prove that it works.",
    epilog=EXIT_CODES,
    group=LazyGroup,
)


@app.callback()
def _no_options() -> None:
    """Make typer build the group although no command is registered here."""


def main() -> None:
    """Run the command line; `pyproject.toml` installs it as ``mousetrap``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # an old code page cannot show every body
            stream.reconfigure(errors="backslashreplace")
    handle_signals()
    app(prog_name="mousetrap")
