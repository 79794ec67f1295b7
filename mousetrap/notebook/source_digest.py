"""Which version of a function runs, and whether its file says something else by now.

Compared is what Python made of the source, so comments and places do not count.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any

from mousetrap.runtime import clock


class SourceDigest:
    """The *number*-th version of a handler that a consumer runs, as *function* was at that time."""

    def __init__(self, function: Callable[..., Any], number: int = 1) -> None:
        self.number = number
        self.at = clock.time()  # seconds since 1970
        self.mark = mark(function)  # what it does, in six digits
        code = _code(function)
        path = Path(code.co_filename) if code is not None else None
        # None: it was written in a cell or a terminal
        self._path = path if path is not None and path.is_file() else None
        self._name = code.co_qualname if code is not None else ""
        self._stamp: object = None  # of the file when it was last read
        self._whole = self._compiled(self._path) if self._path is not None else None
        self._stale = ""

    @property
    def stale(self) -> str:
        """In what way its file differs from what runs; "" if it does not."""
        if self._path is None:
            return ""
        stamp = _stamp(self._path)
        if stamp != self._stamp:  # else it was read before
            self._stamp = stamp
            self._stale = self._difference(self._path)
        return self._stale

    def _difference(self, path: Path) -> str:
        module = self._compiled(path)
        if module is None:
            return f"its file {path.name} is gone, or no Python any more"
        if not any(_digest(each)[:6] == self.mark for each in _codes(module, self._name)):
            return f"its source in {path.name} has changed: import it anew"
        if self._whole is not None and _digest(module) != _digest(self._whole):
            return f"{path.name}, where it comes from, has changed: import it anew"
        return ""

    @staticmethod
    def _compiled(path: Path) -> CodeType | None:
        try:
            return compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
        except (OSError, SyntaxError, ValueError):
            return None

    def __str__(self) -> str:
        at = clock.local_time(self.at)
        return f"v{self.number} ({self.mark}, {at})"


def mark(function: Callable[..., Any]) -> str:
    """Six digits that are the same for functions that do the same."""
    code = _code(function)
    return "no code" if code is None else _digest(code)[:6]


def inner(function: Any) -> Any:
    """The function that a person wrote, inside stages, decorators and partials."""
    for _ in range(20):  # a guess at more than anybody wraps
        if isinstance(function, functools.partial):
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        else:
            break
    return function


def _code(function: Any) -> CodeType | None:
    function = inner(function)
    if not hasattr(function, "__code__") and callable(function):  # an object that can be called
        function = type(function).__call__
    code = getattr(function, "__code__", None)
    return code if isinstance(code, CodeType) else None


def _digest(code: CodeType) -> str:
    digest = hashlib.sha256(code.co_code)
    digest.update(repr((code.co_names, code.co_varnames, code.co_freevars, code.co_argcount,
                        code.co_kwonlyargcount, code.co_flags)).encode())  # fmt: skip
    for each in code.co_consts:
        if isinstance(each, CodeType):
            digest.update(_digest(each).encode())
        elif isinstance(each, frozenset):  # shows itself in any order
            digest.update(repr(sorted(map(repr, each))).encode())
        else:
            digest.update(repr(each).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def _codes(code: CodeType, name: str) -> Iterator[CodeType]:
    """Every function of that qualified name: a file may define it twice, under an ``if``."""
    for each in code.co_consts:
        if isinstance(each, CodeType):
            if each.co_qualname == name:
                yield each
            yield from _codes(each, name)


def _stamp(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return "gone"
    return found.st_mtime_ns, found.st_size
