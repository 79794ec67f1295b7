"""Which version of a handler runs, and whether its source file has changed since.

Compiled code is compared, so comments and line numbers do not count.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any

from mousetrap.runtime import clock

MAX_WRAPPERS = 20  # decorators and partials around a function; a guess: more than anyone uses
DIGITS = 6  # of a digest, as it is shown


class SourceDigest:
    """The *number*-th version of a handler that a consumer runs, as *function* is at this time."""

    def __init__(self, function: Callable[..., Any], number: int = 1) -> None:
        self.number = number
        self.at = clock.time()  # seconds since 1970
        self.digest = digest_of(function)
        code = _code_of(function)
        path = Path(code.co_filename) if code is not None else None
        # None: the function was written in a cell or a terminal
        self._path = path if path is not None and path.is_file() else None
        self._name = code.co_qualname if code is not None else ""
        self._file_state: object = None  # when the file was last read
        self._module = self._compiled(self._path) if self._path is not None else None
        self._stale = ""

    @property
    def stale(self) -> str:
        """How the source file differs from what runs; "" if it does not."""
        if self._path is None:
            return ""
        state = _state_of(self._path)
        if state != self._file_state:  # else it has not changed since it was read
            self._file_state = state
            self._stale = self._difference(self._path)
        return self._stale

    def _difference(self, path: Path) -> str:
        module = self._compiled(path)
        if module is None:
            return f"its file {path.name} is gone, or is not valid Python any more"
        codes = _codes_named(self._name, module)
        if not any(_digest(each)[:DIGITS] == self.digest for each in codes):
            return f"its source in {path.name} has changed: import it again"
        if self._module is not None and _digest(module) != _digest(self._module):
            return f"another part of its file {path.name} has changed: import it again"
        return ""

    @staticmethod
    def _compiled(path: Path) -> CodeType | None:
        try:
            return compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
        except (OSError, SyntaxError, ValueError):
            return None

    def __str__(self) -> str:
        at = clock.local_time(self.at)
        return f"v{self.number} ({self.digest}, {at})"


def digest_of(function: Callable[..., Any]) -> str:
    """Return six digits that are equal for functions with equal compiled code."""
    code = _code_of(function)
    return "no code" if code is None else _digest(code)[:DIGITS]


def unwrap(function: Any) -> Any:
    """Return the function that a person wrote, from inside stages, decorators and partials."""
    for _ in range(MAX_WRAPPERS):
        if isinstance(function, functools.partial):
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        else:
            break
    return function


def _code_of(function: Any) -> CodeType | None:
    function = unwrap(function)
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
        elif isinstance(each, frozenset):  # the order of its repr is not fixed
            digest.update(repr(sorted(map(repr, each))).encode())
        else:
            digest.update(repr(each).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def _codes_named(name: str, code: CodeType) -> Iterator[CodeType]:
    """Yield each function of this qualified name: a file may define two, under an ``if``."""
    for each in code.co_consts:
        if isinstance(each, CodeType):
            if each.co_qualname == name:
                yield each
            yield from _codes_named(name, each)


def _state_of(path: Path) -> object:
    """Return what changes when the file does: its time of modification and its size."""
    try:
        found = path.stat()
    except OSError:
        return "gone"
    return found.st_mtime_ns, found.st_size
