"""The end of the process: publishes under way are written and confirmed, or counted on stderr.

A script may end without closing its publishers: it returns, raises, or calls `sys.exit`, perhaps
while one of its threads publishes. A process that is killed, or calls `os._exit`, does not run
this.
"""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress
from typing import Protocol
from weakref import WeakSet

from mousetrap.display.safe_text import safe
from mousetrap.runtime import clock

EXIT_TIMEOUT = 4.0  # seconds, for all publishers together; Jupyter kills a kernel after 5


class Finishing(Protocol):
    """A publisher whose messages the end of the process waits for."""

    def refuse_new(self) -> None:
        """Raise an error for each publish from now on."""

    def finish(self, timeout: float) -> int:
        """Wait for answers, close; return how many messages the broker did not confirm."""


_open: WeakSet[Finishing] = WeakSet()
_process = 0  # the id of the process that has registered `finish_publishers`


def finish_at_exit(member: Finishing) -> None:
    """Have *member* finished when this process ends."""
    global _process
    _open.add(member)
    if _process == os.getpid():
        return
    if not _process:  # a forked child inherits the registration
        atexit.register(finish_publishers)
    _process = os.getpid()
    # A child of multiprocessing may end without `atexit`; it runs these finalizers instead.
    multiprocessing = sys.modules.get("multiprocessing")
    if multiprocessing is not None and multiprocessing.parent_process() is not None:
        from multiprocessing.util import Finalize

        Finalize(None, finish_publishers, exitpriority=0)


def finish_publishers(timeout: float = EXIT_TIMEOUT) -> None:
    """Wait up to *timeout* seconds for the answers to all publishes; say how many got none."""
    members = tuple(_open)
    deadline = clock.monotonic() + timeout
    for each in members:  # all of them first: threads may still publish
        each.refuse_new()
    missing = 0
    problems: list[str] = []
    for each in members:
        left = clock.remaining(deadline)
        try:
            found = each.finish(left)
        except KeyboardInterrupt:  # do not wait any longer
            deadline = clock.monotonic()
            found = each.finish(0.0)
        missing += found
        if found:
            problems.append(safe(each))
    if missing:
        _print(
            f"mousetrap: the process ends, and {missing:,} of its messages are not confirmed: they "
            f"may be lost ({'; '.join(problems)}). Close a publisher before the end, or use it in "
            f"a with block, and look at the receipts\n"
        )


def _print(line: str) -> None:
    """Write *line* to stderr. A kernel that ends may have closed its own: then to its process's."""
    for stream in (sys.stderr, sys.__stderr__):
        if stream is not None:
            with suppress(Exception):
                stream.write(line)
                stream.flush()
                return
