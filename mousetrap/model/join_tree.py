"""Whether all that came of one message has arrived at a join, and in which order.

A message that a stage splits is the root of a tree; each message that comes of it is a node. A node
that became *count* messages has that many children, numbered from 0. What arrives at the join are
the reports of the leaves, each with its path: the ``(index, count)`` of every branching from the
root down to it. A step that makes one message of one adds nothing to the path.

So the tree needs no report of an inner node: each child says how many siblings it has. The tree is
complete when every child of every branching has a report below it or of its own. Bookkeeping only;
nothing here talks to a broker. Prototyped in ``notebooks/09_shapes.ipynb``.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeAlias, TypeVar

T = TypeVar("T")

Path: TypeAlias = tuple[tuple[int, int], ...]
"""The index and the number of the siblings at each branching: ``((2, 10), (0, 3))``."""


class ReportKind(enum.IntEnum):
    """What became of a leaf. If two reports of one leaf differ, the larger kind counts."""

    DEAD = 0  # it is in a dead queue; if it is replayed, another report follows
    NOTHING = 1  # its handler returned nothing that leads to the join
    PART = 2  # it is here


class Leaf(NamedTuple, Generic[T]):
    """The report of one leaf, with what its sender attached."""

    kind: ReportKind
    value: T


class JoinTree(Generic[T]):
    """Collects the reports of one group, in any order and however often each one comes.

    If a handler is called twice and returns another number of outputs the second time, each number
    is a branching of its own, and the node is complete when one of them is: never with a mixture
    of both.

    Threads: one.
    """

    __slots__ = ("_root", "reports")

    def __init__(self) -> None:
        self._root: _Node[T] = _Node(None)
        self.reports = 0  # how many leaves have a report

    def add(self, path: Path, kind: ReportKind, value: T) -> T | None:
        """Record the report of the leaf at *path*; return the value that is not needed, if any.

        That is the one of an earlier report of the same leaf, or *value* itself if the earlier one
        says more.
        """
        node = self._root
        for index, count in path:
            node = node.child(index, count)
        known, new = node.leaf, Leaf(kind, value)
        if known is not None and known.kind > kind:
            return value
        node.leaf = new
        if known is not None:
            return known.value
        self.reports += 1
        node.update()
        return None

    @property
    def is_complete(self) -> bool:
        """Whether each leaf has a report."""
        return self._root.is_complete

    def leaves(self) -> Iterator[Leaf[T]]:
        """Yield the reports of a complete tree in the order of the leaves, left to right."""
        return self._root.leaves()

    def missing(self, limit: int) -> list[Path]:
        """Return up to *limit* paths below which a report is missing; the root's is ``()``."""
        found: list[Path] = []
        self._root.add_missing((), found, limit)
        return found


class _Branching(Generic[T]):
    """One way in which a node became *count* children."""

    __slots__ = ("children", "complete", "count", "node")

    def __init__(self, node: _Node[T], count: int) -> None:
        self.node = node
        self.count = count
        self.children: dict[int, _Node[T]] = {}  # only those that are known: count may be absurd
        self.complete = 0  # how many of the children are


class _Node(Generic[T]):
    """A message of the tree; *place* is the branching that it is a child of."""

    __slots__ = ("branchings", "is_complete", "leaf", "place")

    def __init__(self, place: _Branching[T] | None) -> None:
        self.place = place
        self.leaf: Leaf[T] | None = None
        self.branchings: dict[int, _Branching[T]] = {}  # by count
        self.is_complete = False

    def child(self, index: int, count: int) -> _Node[T]:
        branching = self.branchings.get(count)
        if branching is None:
            branching = self.branchings[count] = _Branching(self, count)
        found = branching.children.get(index)
        if found is None:
            found = branching.children[index] = _Node(branching)
        return found

    def update(self) -> None:
        """Note that this node is complete now, and every node above that becomes so by it."""
        node = self
        while not node.is_complete:
            node.is_complete = True
            if (place := node.place) is None:
                return
            place.complete += 1
            if place.complete < place.count:
                return
            node = place.node

    def leaves(self) -> Iterator[Leaf[T]]:
        """Yield the leaves of this node: its own, unless that is dead and a branching is better."""
        if self.leaf is not None and self.leaf.kind is not ReportKind.DEAD:
            yield self.leaf
            return
        for each in self.branchings.values():
            if each.complete == each.count:
                for index in range(each.count):
                    yield from each.children[index].leaves()
                return
        if self.leaf is not None:
            yield self.leaf

    def add_missing(self, path: Path, found: list[Path], limit: int) -> None:
        if self.is_complete or len(found) >= limit:
            return
        if not self.branchings:
            found.append(path)
            return
        best = max(self.branchings.values(), key=lambda each: each.complete / each.count)
        for index in range(best.count):
            if len(found) >= limit:
                return
            child = best.children.get(index)
            if child is None:
                found.append((*path, (index, best.count)))
            else:
                child.add_missing((*path, (index, best.count)), found, limit)
