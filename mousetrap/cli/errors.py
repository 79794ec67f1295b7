"""Exit codes, and the one place where an error becomes a message and an exit code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import typer
from typer.core import TyperGroup

from mousetrap.errors import (
    AccessRefused,
    BrokerSetupError,
    BrokerUnreachable,
    ConnectionLost,
    ExtractError,
    MousetrapError,
    ParameterError,
    ProcessEnded,
    ScaffoldError,
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
    ((ExtractError, ParameterError, ScaffoldError, SettingsError), ExitCode.USAGE),
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


_report: Callable[[str], object] | None = None  # prints errors, if it is not `print_error`
_running = 0  # commands that run and turn an exception into an exit code


def handle_signals() -> None:
    """Make SIGINT and SIGTERM end this program with 130 or 143, at any moment.

    While a command runs they raise an exception, so that messages already taken are printed and
    what was started is ended. Before and after it they end the program at once. `work` handles
    the two signals itself.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # a shell's background process
            signal.signal(number, _on_signal)


def _on_signal(number: int, _: FrameType | None) -> None:
    if _running:
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
    # os.write and not print: the signal may have come in the middle of another print
    os.write(2, b"error: terminated\n" if number == signal.SIGTERM else b"error: interrupted\n")
    os._exit(128 + number)


class Group(TyperGroup):
    """Prints the package's errors as one message on stderr, with an exit code and no traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        global _running
        _running += 1
        try:
            try:
                return super().invoke(ctx)
            finally:
                _running -= 1
        except (MousetrapError, TimeoutError) as error:
            _print_error(str(error))
            raise typer.Exit(code_of(error)) from None
        except BrokenPipeError:  # as of `| head`; what was not printed was not taken
            _silence_stdout()
            _print_error("the program that reads the output has ended")
            raise typer.Exit(ExitCode.FAILED) from None
        except Terminated:
            _print_error("terminated")
            raise typer.Exit(ExitCode.TERMINATED) from None
        except (KeyboardInterrupt, typer.Abort):  # Abort: Ctrl-C at a question
            _print_error("interrupted")
            raise typer.Exit(ExitCode.INTERRUPTED) from None


def _silence_stdout() -> None:
    """Send what is left in the buffer of stdout nowhere, or the interpreter would fail to."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def report_errors_by(function: Callable[[str], object]) -> None:
    """Have *function* print the text of the error that ends the command."""
    global _report
    _report = function


def _print_error(text: str) -> None:
    if _report is not None:
        _report(text)
        return
    from mousetrap.cli.console import print_error  # late: `mousetrap --help` needs no rich

    print_error(text)


def new_app(help: str, epilog: str | None = None, group: type[Group] = Group) -> typer.Typer:
    """Return an app whose commands report errors as `Group` does."""
    return typer.Typer(
        cls=group,
        help=help,
        epilog=epilog,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
