"""Threads and thread pools inherit chosen context variables from the code that starts them.

Python copies context variables to coroutines, but a new thread begins with none, and so does a
task of a `concurrent.futures.ThreadPoolExecutor` (``asyncio.to_thread`` copies them itself). There
is no hook for it, so `inherit` replaces `threading.Thread.start` and `ThreadPoolExecutor.submit`
once in a process, when it is first called.

A thread of a pool belongs to no code in particular: each of its tasks has the variables of the
code that submitted that task. Threads that other means start (``_thread``, C code) inherit nothing.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from concurrent.futures.thread import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

_inherited: list[ContextVar[Any]] = []
_UNSET: Any = object()


def inherit(variable: ContextVar[Any]) -> None:
    """Have threads inherit *variable* from now on; safe to call twice.

    Where *variable* is not set, a thread starts exactly as without this function.
    """
    if variable in _inherited:
        return
    _inherited.append(variable)
    if len(_inherited) == 1:
        threading.Thread.start = _starting(threading.Thread.start)  # type: ignore[method-assign]
        ThreadPoolExecutor.submit = _submitting(ThreadPoolExecutor.submit)  # type: ignore[method-assign]


def _starting(start: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(start)
    def start_with_context(self: threading.Thread, *args: Any, **kwargs: Any) -> Any:
        if values := _values():
            # `run` is looked up on the thread itself, so a subclass's own `run` is kept
            self.run = functools.partial(_call_with, values, self.run)  # type: ignore[method-assign]
        return start(self, *args, **kwargs)

    return start_with_context


def _submitting(submit: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(submit)
    def submit_with_context(self: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        if not (values := _values()):
            return submit(self, function, *args, **kwargs)
        task = functools.partial(_call_with, values, function)
        # the pool may start a thread now, which must not keep the variables for later tasks
        none = [(variable, None) for variable, _ in values]
        return _call_with(none, submit, self, task, *args, **kwargs)

    return submit_with_context


def _values() -> list[tuple[ContextVar[Any], Any]]:
    """Return the inherited variables that have a value here, each with its value."""
    return [(each, value) for each in _inherited if (value := each.get(None)) is not None]


def _call_with(
    values: list[tuple[ContextVar[Any], Any]], function: Callable[..., Any],
    *args: Any, **kwargs: Any,
) -> Any:  # fmt: skip
    tokens = [(variable, variable.set(value)) for variable, value in values]
    try:
        return function(*args, **kwargs)
    finally:
        for variable, token in tokens:
            variable.reset(token)
