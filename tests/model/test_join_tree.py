"""The tree of a join: exactly once complete, never early, in whatever order reports arrive."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mousetrap.model.join_tree import JoinTree, ReportKind

PART, NOTHING, DEAD = ReportKind.PART, ReportKind.NOTHING, ReportKind.DEAD

shapes = st.recursive(
    st.sampled_from([PART, NOTHING, DEAD]), lambda child: st.lists(child, min_size=2, max_size=5)
)


def reports(shape, path=()):
    """Return the (path, kind, name) of each leaf of *shape*: a kind, or a list of shapes."""
    if not isinstance(shape, list):
        return [(path, shape, str(path))]
    count = len(shape)
    return [e for n, each in enumerate(shape) for e in reports(each, (*path, (n, count)))]


@given(shapes, st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_tree_is_complete_with_the_last_report_and_not_before(shape, chance: random.Random):
    """In any order, with duplicates, and after a crash, when all is delivered again."""
    wanted = reports(shape)
    order = [*wanted, *chance.sample(wanted, chance.randint(0, len(wanted)))]
    chance.shuffle(order)
    tree, seen = JoinTree(), set()
    for n, report in enumerate(order):
        if chance.random() < 0.05:  # a crash: the held reports come again, in another order
            again = order[: n + 1]
            chance.shuffle(again)
            tree, seen = JoinTree(), set()
            for each in again:
                tree.add(*each)
                seen.add(each[0])
        unneeded = tree.add(*report)
        assert (unneeded is not None) == (report[0] in seen)
        seen.add(report[0])

        assert tree.is_complete == (len(seen) == len(wanted))
        assert bool(tree.missing(3)) != tree.is_complete
    assert [leaf.value for leaf in tree.leaves()] == [name for _, _, name in wanted]
    assert tree.reports == len(wanted)


@given(st.integers(2, 6), st.integers(2, 6), st.randoms(use_true_random=False))
def test_tree_never_mixes_two_attempts_of_one_handling(first, second, chance):
    """A handler that returns another number the second time: the parts of one attempt, all."""
    attempts = [[(((n, count),), PART, (count, n)) for n in range(count)]
                for count in (first, second)]  # fmt: skip
    published = attempts[0][: chance.randint(0, first)]  # it was lost meanwhile, or just after
    order = [*published, *attempts[1]]
    chance.shuffle(order)
    tree = JoinTree()
    for report in order:
        tree.add(*report)

    values = [leaf.value for leaf in tree.leaves()]
    assert tree.is_complete
    assert values in ([e[2] for e in attempts[0]], [e[2] for e in attempts[1]])


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_part_counts_more_than_the_dead_letter_that_it_was(order):
    """A dead letter that was replayed in time is a part like the others."""
    pair = [(((0, 2),), DEAD, "dead"), (((0, 2),), PART, "part")]
    tree = JoinTree()

    unneeded = [tree.add(*pair[n]) for n in order]

    assert unneeded == [None, "dead"]
    tree.add(((1, 2),), PART, "other")
    assert [leaf.value for leaf in tree.leaves()] == ["part", "other"]


def test_dead_letter_that_became_several_when_it_was_replayed():
    """Its place is taken by all of them, or by the dead letter while some are missing."""
    tree = JoinTree()
    tree.add(((0, 2),), DEAD, "dead")
    tree.add(((1, 2),), PART, "other")
    tree.add(((0, 2), (1, 2)), PART, "b")
    assert [leaf.value for leaf in tree.leaves()] == ["dead", "other"]

    tree.add(((0, 2), (0, 2)), PART, "a")

    assert [leaf.value for leaf in tree.leaves()] == ["a", "b", "other"]


def test_tree_of_nothing():
    """A split that returned nothing has one report, of the root, and no part."""
    tree = JoinTree()
    assert tree.missing(5) == [()]

    tree.add((), NOTHING, "root")

    assert tree.is_complete
    assert [leaf.kind for leaf in tree.leaves()] == [NOTHING]


def test_absurd_count_takes_no_memory():
    """A forged header may name any number of siblings."""
    tree = JoinTree()
    tree.add(((5, 10**9),), PART, "x")

    assert not tree.is_complete
    assert tree.missing(2) == [((0, 10**9),), ((1, 10**9),)]
