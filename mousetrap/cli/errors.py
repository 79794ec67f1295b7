"""Exit codes, and the one place where an error becomes a sentence and a code."""

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
    ExitCode as ExitCode,  # so that commands find all about codes here
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
        return ExitCode(error.code)  # what ended a worker process ends who started it
    return next((code for kinds, code in _CODES if isinstance(error, kinds)), ExitCode.FAILED)


class Terminated(KeyboardInterrupt):
    """SIGTERM came: it ends what Ctrl-C ends, in the same way."""


def terminate(_: int, __: FrameType | None) -> None:
    """Handle SIGTERM."""
    raise Terminated


class Group(TyperGroup):
    """Turns our errors into one sentence on stderr and a named exit code; no traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except (MousetrapError, TimeoutError) as error:
            print_error(str(error))
            raise typer.Exit(code_of(error)) from None
        except Terminated:
            print_error("terminated")
            raise typer.Exit(ExitCode.TERMINATED) from None
        except (KeyboardInterrupt, typer.Abort):  # Abort: at a question
            print_error("interrupted")
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
