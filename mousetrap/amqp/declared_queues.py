"""Which queues were declared by us, for whoever has to look after them.

A broker without its management plugin lists nobody's queues. So where ``MOUSETRAP_DECLARED`` names
a file, everything of ours that declares a queue writes the name into it, once: the kernel of a
notebook, its worker processes, a test. Whoever made the file then knows what to show when something
fails, and what to delete. Without the variable nothing is written. Queues that are declared in
plain pika are not known here.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from difflib import get_close_matches

DECLARED_VARIABLE = "MOUSETRAP_DECLARED"
"""The environment variable; its value is the path of a file."""

_OURS = re.compile(r"\.(retry\.[^.]+s|dead|quarantine)$|(^|\.)events$")  # beside a work queue
_here: set[str] = set()  # what this process has declared
_noted: set[tuple[str, str]] = set()  # (path, name) that this process has written already


def note(name: str) -> None:
    """Remember that this process declared the queue *name* (on the wire).

    If `DECLARED_VARIABLE` names a file, the name is appended to it, once.

    Threads: any; processes, too: a line is short enough to be appended in one piece.
    """
    _here.add(name)
    path = os.environ.get(DECLARED_VARIABLE)
    if not path or (path, name) in _noted:
        return
    _noted.add((path, name))
    # Nobody's message waits for this: a file that is gone is no reason to declare nothing.
    with suppress(OSError), open(path, "a", encoding="utf-8") as file:
        file.write(f"{name}\n")


def similar_names(name: str, n: int = 5) -> list[str]:
    """Return up to *n* work queues that this process has declared, those most like *name* first."""
    known = [each for each in tuple(_here) if not _OURS.search(each) and each != name]
    return get_close_matches(name, known, n, cutoff=0.5)


def names_in(path: str | os.PathLike[str]) -> list[str]:
    """Return the names that were written to *path*, each once, in the order they came."""
    with suppress(FileNotFoundError), open(path, encoding="utf-8", errors="replace") as file:
        return [name for name in dict.fromkeys(file.read().split("\n")) if name]
    return []
