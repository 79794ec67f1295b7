"""Exit codes, and the one place where an error becomes a sentence and a code."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import typer
from typer.core import TyperGroup

from mousetrap.cli.show import complain
from mousetrap.errors import (
    AccessRefused,
    BrokerSetupError,
    BrokerUnreachable,
    ConnectionLost,
    ExtractError,
    MousetrapError,
    ParameterError,
    SettingsError,
    TopologyMismatch,
)


class ExitCode(IntEnum):
    """What a script can tell from ``$?``."""

    OK = 0
    FAILED = 1  # a check did not pass, a message did not arrive, a worker cannot go on
    USAGE = 2  # a bad argument, parameter or setting
    NO_BROKER = 3  # nobody answers, or none could be brought up
    REFUSED = 4  # user, password, vhost or permission
    TOPOLOGY = 5  # a queue exists with other arguments
    INTERRUPTED = 130  # Ctrl-C


EXIT_CODES = (
    "Exit codes: 0 done; 1 failed (a check, a message, a worker); 2 bad argument or setting; "
    "3 no broker; 4 access refused; 5 queue with other arguments; 130 interrupted."
)

_CODES: list[tuple[tuple[type[BaseException], ...], ExitCode]] = [
    ((ExtractError, ParameterError, SettingsError), ExitCode.USAGE),
    ((BrokerUnreachable, BrokerSetupError, ConnectionLost), ExitCode.NO_BROKER),
    ((AccessRefused,), ExitCode.REFUSED),
    ((TopologyMismatch,), ExitCode.TOPOLOGY),
]


def code_of(error: BaseException) -> ExitCode:
    """Return the exit code for *error*."""
    return next((code for kinds, code in _CODES if isinstance(error, kinds)), ExitCode.FAILED)


class Group(TyperGroup):
    """Turns our errors into one sentence on stderr and a named exit code; no traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except (MousetrapError, TimeoutError) as error:
            complain(str(error))
            raise typer.Exit(code_of(error)) from None
        except (KeyboardInterrupt, typer.Abort):  # Abort: at a question
            complain("interrupted")
            raise typer.Exit(ExitCode.INTERRUPTED) from None


def new_app(help: str, epilog: str | None = None) -> typer.Typer:
    """Return an app whose commands fail as `Group` says."""
    return typer.Typer(
        cls=Group,
        help=help,
        epilog=epilog,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
