"""Keeps pika's log out of a program's where its errors are raised or logged in our words.

For a connection attempt that times out pika logs up to ten records with two tracebacks, beside the
exception that it raises. They are dropped on our I/O threads, and on other threads while `quiet`.
Connections that a program opens by pika itself are not affected, and a program that sets a level
for the logger ``pika`` gets all.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from mousetrap.runtime import threads

LOGGERS = (
    "pika.adapters.base_connection",
    "pika.adapters.blocking_connection",
    "pika.adapters.select_connection",
    "pika.adapters.utils.connection_workflow",
    "pika.adapters.utils.io_services_utils",
    "pika.adapters.utils.selector_ioloop_adapter",
    "pika.channel",
    "pika.connection",
    "pika.heartbeat",
)
_this_thread = threads.local()


def silence_thread() -> None:
    """Drop what pika logs on this thread from now on."""
    _this_thread.is_quiet = True


@contextmanager
def quiet() -> Iterator[None]:
    """Drop what pika logs on this thread while the block runs."""
    before = getattr(_this_thread, "is_quiet", False)
    _this_thread.is_quiet = True
    try:
        yield
    finally:
        _this_thread.is_quiet = before


def _is_wanted(_: logging.LogRecord) -> bool:
    is_asked_for = logging.getLogger("pika").level != logging.NOTSET
    return is_asked_for or not getattr(_this_thread, "is_quiet", False)


def install() -> None:
    """Add the filter to pika's loggers: one at ``pika`` would not see the records of the others."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_is_wanted)
