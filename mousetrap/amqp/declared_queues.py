"""Records which queues and exchanges mousetrap has declared, in this process and in a file.

A broker without its management plugin cannot list its queues. If the environment variable
``MOUSETRAP_DECLARED`` names a file, every process of ours that declares a queue appends the name to
it, once: the kernel of a notebook, its worker processes, a test. The process that made the file
then knows which queues to show after a failure, and which to delete. Without the variable nothing
is written. Queues that were declared in plain pika are not recorded, nor are exclusive queues.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from difflib import get_close_matches

DECLARED_VARIABLE = "MOUSETRAP_DECLARED"
"""The environment variable; its value is the path of a file."""

# not a work queue
_DERIVED = re.compile(r"\.((retry|delay)\.[0-9.e+-]+s(\.2)?|dead|quarantine|join)$|(^|\.)events$")
_OF_A_RUN = re.compile(r"[\w-]+-[0-9a-f]{8}\.")
_declared_here: set[str] = set()  # by this process
_written: set[tuple[str, str]] = set()  # (path, name) that this process has written


def note(name: str) -> None:
    """Remember that this process declared the queue *name* (on the wire).

    If `DECLARED_VARIABLE` names a file, the name is appended to it, once.

    Threads: any; also several processes: a line is short enough to be appended atomically.
    """
    _declared_here.add(name)
    if path := os.environ.get(DECLARED_VARIABLE):
        _append(path, name)


def _append(path: str, name: str) -> None:
    if (path, name) in _written:
        return
    _written.add((path, name))
    # No message depends on this: if the file cannot be written, the queue is declared all the same.
    with suppress(OSError), open(path, "a", encoding="utf-8") as file:
        file.write(f"{name}\n")


def note_exchange(name: str) -> None:
    """Remember, in a file beside that of the queues, the exchange *name* (on the wire)."""
    if path := os.environ.get(DECLARED_VARIABLE):
        _append(_exchanges_file(path), name)


def similar_names(name: str, n: int = 2) -> list[str]:
    """Return up to *n* work queues of this process that may be meant, the most similar first.

    Those of another run, check or test are not meant. Two names in the same namespace are compared
    without it: it would make them all similar.
    """
    namespace, plain = _split(name)
    known = [
        own
        for each in tuple(_declared_here)
        if not _DERIVED.search(each) and each != name
        for other, own in [_split(each)]
        if other == namespace
    ]
    return [namespace + each for each in get_close_matches(plain, known, n, cutoff=0.7)]


def _split(name: str) -> tuple[str, str]:
    """Return the namespace of a run, a check or a test with its dot, if there is one; the rest."""
    found = _OF_A_RUN.match(name)
    return (found[0], name[found.end() :]) if found else ("", name)


def names_in(path: str | os.PathLike[str]) -> list[str]:
    """Return the names in the file *path*, each once, in the order they were written."""
    with suppress(FileNotFoundError), open(path, encoding="utf-8", errors="replace") as file:
        return [name for name in dict.fromkeys(file.read().split("\n")) if name]
    return []


def exchanges_in(path: str | os.PathLike[str]) -> list[str]:
    """Return the names of the exchanges that were declared beside the queues of the file *path*."""
    return names_in(_exchanges_file(path))


def _exchanges_file(path: str | os.PathLike[str]) -> str:
    return f"{os.fspath(path)}.exchanges"
