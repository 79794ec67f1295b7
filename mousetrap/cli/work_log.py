"""The log of ``mousetrap work`` on standard error: lines for people, or JSON for programs.

It has the records of all loggers, those of the application too. A record that is made while a
handler runs says which message that is. The package's own records name an error by its class and
have no body; what the application logs is its own matter.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from mousetrap.cli.console import print_message
from mousetrap.cli.errors import report_errors_by
from mousetrap.display.formats import duration
from mousetrap.display.safe_text import safe
from mousetrap.model.message import Message, current_message
from mousetrap.model.outcome import Outcome
from mousetrap.worker.attempt import FAILED_LINE
from mousetrap.worker.handling import current_handling
from mousetrap.worker.hooks import Hook

OURS = "mousetrap"  # the logger above all loggers of the package
SAY = logging.getLogger("mousetrap.cli.work")  # what the command itself prints, in JSON
_OF_FAILURES = ("queue", "message", "attempt", "error", "target")  # the arguments of FAILED_LINE


def write_log(level: int, format: str, process: str, kinds: logging.Filter) -> None:
    """Write all log records to standard error in this *format*, one line each.

    *level* is that of mousetrap's own records. Other loggers have the level that the application
    gave them; one that has none, and a root logger that nobody has configured, has INFO. Handlers
    of the application that write to the terminal are replaced, so that each record appears once and
    in this format; its other handlers stay. *process* names this one among others; *kinds* is a
    further filter.
    """
    handler = _OnStandardError()
    handler.addFilter(kinds)
    handler.setFormatter(_JSON(process) if format == "json" else _Text(process))
    root = logging.getLogger()
    if not root.handlers and root.level == logging.WARNING:  # as Python begins
        root.setLevel(logging.INFO)
    for logger in _loggers():
        kept = [each for each in logger.handlers if not _is_shown(each)]
        if logger is root or (len(kept) < len(logger.handlers) and not logger.propagate):
            kept.append(handler)
        logger.handlers[:] = kept
    logging.getLogger(OURS).setLevel(level)
    logging.captureWarnings(capture=True)


def printer(format: str) -> Callable[[str], None]:
    """Return the function that prints a line about what the command does, in this *format*."""
    return _print_json if format == "json" else print_message


def report_errors_in(format: str) -> None:
    """Have the error that ends the command printed in this *format*, too."""
    if format == "json":
        report_errors_by(lambda text: _print_json(text, logging.ERROR))


class DoneLog(Hook):
    """Logs each message that is done, for the level DEBUG."""

    def finished(self, queue: str, outcome: Outcome) -> None:
        """Log it with its whole id."""
        if outcome.kind == "done":
            SAY.debug(
                "%s: message %s, attempt %d: done in %s", safe(queue), safe(outcome.id),
                outcome.attempt, duration(outcome.seconds),
                extra={"fields": {
                    "stage": outcome.stage, "message": outcome.id, "job": outcome.job or outcome.id,
                    "attempt": outcome.attempt, "seconds": round(outcome.seconds, 6),
                }},
            )  # fmt: skip


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return what *record* says beside its text: stage, message, job, attempt, trace, error."""
    found: dict[str, Any] = {}
    handling = current_handling.get(None)
    message: Message | None = getattr(record, "of_message", None) or current_message.get(None)
    if handling is not None:
        found["stage"] = handling.name
    if record.msg == FAILED_LINE and isinstance(record.args, tuple):
        found |= dict(zip(_OF_FAILURES, record.args, strict=True))
    if message is not None:
        found |= {"message": message.id, "job": message.job, "attempt": message.attempt}
        if trace := _trace(message):
            found["trace"] = trace
    return found | getattr(record, "fields", {})


class _OnStandardError(logging.StreamHandler[Any]):
    """Writes to what is standard error at the time: a panel takes its place while it is shown."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr


class _Text(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = f"{process}: " if process else ""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if not _is_ours(record):
            text = f"{record.name}: {text}"
            if (message := current_message.get(None)) is not None:
                text += f" [message {message.short_id}, attempt {message.attempt}]"
        head = f"{self.formatTime(record)} {record.levelname} {self._process}"
        return safe(head + text.replace("\n", " | "))


class _JSON(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = {"process": process} if process else {}

    def format(self, record: logging.LogRecord) -> str:
        values = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "text": record.getMessage(),
            **self._process,
            **fields_of(record),
        }
        if record.exc_info and record.exc_info[1] is not None:
            values["error"] = type(record.exc_info[1]).__qualname__
            values["traceback"] = self.formatException(record.exc_info)
        return json.dumps(values, default=str)  # ASCII: nothing in it can act on a terminal


def _print_json(line: str, level: int = logging.INFO) -> None:
    record = SAY.makeRecord(SAY.name, level, "", 0, line, (), None)
    sys.stderr.write(_JSON("").format(record) + "\n")
    sys.stderr.flush()


def _loggers() -> Iterator[logging.Logger]:
    yield logging.getLogger()
    for each in list(logging.root.manager.loggerDict.values()):
        if isinstance(each, logging.Logger):
            yield each


def _is_shown(handler: logging.Handler) -> bool:
    """Return whether *handler* writes to the terminal."""
    stream = getattr(handler, "stream", None)
    return stream is not None and stream in (sys.stdout, sys.stderr)


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name == OURS or record.name.startswith(f"{OURS}.")


def _trace(message: Message) -> str:
    """Return the trace id of *message*: the second part of its header ``traceparent`` (W3C)."""
    parts = str(message.headers.get("traceparent", "")).split("-")
    return parts[1] if len(parts) == 4 and len(parts[1]) == 32 else ""
