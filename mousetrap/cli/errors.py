"""Exit codes, and the one place where an error becomes a message and an exit code."""

from __future__ import annotations

from types import FrameType
from typing import Any

import typer
from typer.core import TyperGroup

from mousetrap.cli.console import print_error
from mousetrap.errors import (
    AccessRefused,
    BrokerSetupError,
    BrokerUnreachable,
    ConnectionLost,
    ExtractError,
    MousetrapError,
    ParameterError,
    ProcessEnded,
    SettingsError,
    TopologyMismatch,
)
from mousetrap.runtime.exit_codes import (
    ExitCode as ExitCode,  # re-exported for the commands
)

EXIT_CODES = (
    "Exit codes: 0 done; 1 failed (a check, a message, a worker); 2 bad argument or setting; "
    "3 no broker; 4 access refused; 5 queue with other arguments; 130 interrupted, "
    "143 terminated."
)

_CODES: list[tuple[tuple[type[BaseException], ...], ExitCode]] = [
    ((ExtractError, ParameterError, SettingsError), ExitCode.USAGE),
    ((BrokerUnreachable, BrokerSetupError, ConnectionLost), ExitCode.NO_BROKER),
    ((AccessRefused,), ExitCode.REFUSED),
    ((TopologyMismatch,), ExitCode.TOPOLOGY),
]


def code_of(error: BaseException) -> ExitCode:
    """Return the exit code for *error*."""
    if isinstance(error, ProcessEnded) and error.code in list(map(int, ExitCode)):
        return ExitCode(error.code)  # the worker process's own exit code
    return next((code for kinds, code in _CODES if isinstance(error, kinds)), ExitCode.FAILED)


class Terminated(KeyboardInterrupt):
    """SIGTERM was received; it ends a command as Ctrl-C does."""


def terminate(_: int, __: FrameType | None) -> None:
    """Handle SIGTERM."""
    raise Terminated


class Group(TyperGroup):
    """Prints the package's errors as one message on stderr, with an exit code and no traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (MousetrapError, TimeoutError) as error:
            print_error(str(error))
            raise typer.Exit(code_of(error)) from None
        except Terminated:
            print_error("terminated")
            raise typer.Exit(ExitCode.TERMINATED) from None
        except (KeyboardInterrupt, typer.Abort):  # Abort: Ctrl-C at a question
            print_error("interrupted")
            raise typer.Exit(ExitCode.INTERRUPTED) from None


def new_app(help: str, epilog: str | None = None) -> typer.Typer:
    """Return an app whose commands report errors as `Group` does."""
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
