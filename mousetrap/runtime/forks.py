"""What a forked child does with the objects of its parent.

A child has a copy of each object of its parent, and the same sockets and files, but only one of its
threads. If it used a copied connection, its bytes would mix with the parent's on one socket; a lock
that another thread held would never be released. So the copies are made unusable, or start again.
"""

from __future__ import annotations

import os
from typing import NoReturn, Protocol, SupportsIndex, TypeVar
from weakref import WeakSet

L = TypeVar("L")  # a lock of `threads`


class Forkable(Protocol):
    """An object that has threads, connections or files."""

    def forked(self) -> None:
        """Forget them; called in the child, whose only thread is the one that calls.

        Nothing may be closed: the parent uses the same sockets and files.
        """


class OfOneProcess:
    """A base of what has threads, connections or files: it cannot be passed to another process.

    A pool of processes, and a start method that does not fork, pickle what they pass on.
    """

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Raise TypeError, as `pickle` does for a socket."""
        name = type(self).__name__
        raise TypeError(
            f"a {name} has connections of this process, so it can be neither copied nor passed to "
            f"another process: pass its settings, and make a {name} there"
        )


_locks: WeakSet[object] = WeakSet()
_watched: WeakSet[Forkable] = WeakSet()


def released_in_child(lock: L) -> L:
    """Return *lock*; a forked child finds it released, whichever thread of the parent held it."""
    _locks.add(lock)
    return lock


def watch(member: Forkable) -> None:
    """Call *member*'s `forked` in each child that is forked from now on."""
    _watched.add(member)


def _in_child() -> None:
    for lock in tuple(_locks):
        lock._at_fork_reinit()  # type: ignore[attr-defined]  # as the standard library does
    for member in tuple(_watched):
        member.forked()


if hasattr(os, "register_at_fork"):  # there is no fork on Windows
    os.register_at_fork(after_in_child=_in_child)
