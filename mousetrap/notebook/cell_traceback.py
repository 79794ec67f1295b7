"""An error of this package as a cell shows it: the lines of the user's code, then the error's text.

The frames inside this package and inside libraries say nothing that the text does not say better.
IPython draws the frames that are left, in the mode and colours that it is set to. It asks an
exception that has a method `_render_traceback_` for its lines; outside IPython nothing changes.
"""

from __future__ import annotations

import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

from mousetrap.display.safe_text import class_name, safe_lines, text_of
from mousetrap.runtime.environment import ipython_shell

ALL_FRAMES = "%tb shows all frames, also those inside mousetrap."

_LIBRARIES = tuple(
    {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)
_TRANSLATED = ("pika",)  # errors of these packages say less than ours that they caused


def lines_of(error: BaseException) -> list[str]:
    """Return the lines that IPython shows for *error*.

    ``%tb``, and any error after ``%xmode Verbose``, shows all frames.
    """
    shell = ipython_shell()
    if shell is None:
        return traceback.format_exception(error)
    with suppress(Exception):  # of another version of IPython: then the error as it draws it
        if not _all_are_wanted(shell):
            return _short(shell, error)
    return _drawn(shell, type(error), error, error.__traceback__, offset=1)


def _short(shell: Any, error: BaseException) -> list[str]:
    frames = [each for each in _frames(error.__traceback__) if not _is_of(each, "IPython")]
    own = [each for each in frames if _is_users(each.tb_frame)]
    lines = _drawn(shell, *_without_causes(error), _chained(own or frames), offset=0)
    lines += [f"\n{cause}" for cause in _causes(error)]
    return [*lines, f"\n{ALL_FRAMES}"] if len(own) < len(frames) else lines


def _drawn(shell: Any, kind: Any, error: Any, first: Any, *, offset: int) -> list[str]:
    drawn = shell.InteractiveTB.structured_traceback(kind, error, first, tb_offset=offset)
    return [str(line) for line in drawn]


def _all_are_wanted(shell: Any) -> bool:
    """Return whether ``%tb`` asks, or the mode shows everything there is."""
    if shell.InteractiveTB.mode == "Verbose":
        return True
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "tb" and _module(frame).startswith("IPython.core.magics"):
            return True
        frame = frame.f_back
    return False


def _frames(first: TracebackType | None) -> Iterator[TracebackType]:
    while first is not None:
        yield first
        first = first.tb_next


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _is_of(entry: TracebackType, package: str) -> bool:
    return _module(entry.tb_frame).partition(".")[0] == package


def _is_users(frame: FrameType) -> bool:
    """Return whether *frame* is of a cell or a module of the user."""
    file = frame.f_code.co_filename
    is_library = file.startswith(("<frozen", *_LIBRARIES))
    return not is_library and _module(frame).partition(".")[0] != __name__.partition(".")[0]


def _chained(entries: list[TracebackType]) -> TracebackType | None:
    """Return a traceback of these entries only."""
    first = None
    for each in reversed(entries):
        first = TracebackType(first, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return first


def _without_causes(error: BaseException) -> tuple[type[Exception], Exception]:
    """Return what IPython draws like *error*, but alone."""
    kind = type(class_name(error), (Exception,), {"__module__": type(error).__module__})
    alone = kind(text_of(error))
    for note in getattr(error, "__notes__", ()):
        alone.add_note(text_of(note))
    return kind, alone


def _causes(error: BaseException) -> Iterator[str]:
    """Yield a sentence for each exception that led to *error*, unless its text has it already."""
    known, seen = text_of(error), {id(error)}
    each: BaseException = error
    while True:
        word = "Caused by" if each.__cause__ is not None else "While handling"
        cause = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
        if cause is None or id(cause) in seen:
            return
        each = cause
        seen.add(id(each))
        text = text_of(each)
        if type(each).__module__.partition(".")[0] not in _TRANSLATED and not (
            text and text in known
        ):
            yield f"{word} {class_name(each)}" + f": {safe_lines(text)}" * bool(text)
