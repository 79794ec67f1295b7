"""Reasons that differ only in their variable parts are of one kind."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.hostile_text import PAYLOADS

from mousetrap.model.error_kinds import MAX_KINDS, error_kinds, further

ONE_KIND = {
    "KeyError: …": ("KeyError: 'EU-0'", "KeyError: 'it\\'s'", 'KeyError: "it\'s"', "KeyError: 7"),
    "E: order … of customer …": ("E: order 17 of customer 'Ann B'", "E: order 18 of customer 5"),
    "E: … is more than 135 %": ("E: 12.5 is more than 135 %", "E: -3e-7 is more than 135 %"),
    "E: at …": ("E: at 2026-11-30T19:13:35Z", "E: at 2027-01-01 00:00"),
    "E: no job …": ("E: no job d9ad85f9", "E: no job deadbeef",
                    "E: no job 123e4567-e89b-12d3-a456-426614174000"),
    "E: … refused it": ("E: amqp://a@b.c:5672/x refused it", "E: 10.0.0.1:5672 refused it",
                        "E: me@example.org refused it"),
    "E: cannot open …: gone": ("E: cannot open /var/lib/x: gone", "E: cannot open ./in: gone",
                               "E: cannot open C:\\data\\in.csv: gone"),
    "E: can't take the worker's […]": ("E: can't take the worker's [1, 2, (3, 4)]",
                                       "E: can't take the worker's ['a']"),
    "E: <Thing object at …>": ("E: <Thing object at 0x7f3a>", "E: <Thing object at 0x7f3b>"),
    "E: got …": ("E: got None", "E: got b'x'", "E: got 5"),
    "E: name=…, bad": ("E: name=Ann, bad", "E: name=Bob, bad"),
    "E: cut …": ("E: cut 'never ends", "E: cut 'nor this \\"),
    "E: lines … end": ("E: lines\n  1 end", "E: lines 2\n\tend"),
    "…: no name": ("17: no name", "18: no name"),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "reasons"), ONE_KIND.items(), ids=list(ONE_KIND))
def test_reasons_that_differ_in_a_value_are_of_one_kind(kind, reasons):
    """Numbers, ids, quoted values, addresses, paths, values of lists."""
    [found] = error_kinds(reasons)

    assert (str(found), found.number) == (kind, len(reasons))
    assert found.members == tuple(range(len(reasons)))


@pytest.mark.parametrize(
    "reasons",
    [
        ("KeyError: 1", "ValueError: 1"),
        ("E: no tariff for 1", "E: no price for 1"),
        ("E: Expected `str`, got `int`", "E: Expected `str`, got `bool`"),  # types, not values
        ("E: rock 'n roll", "E: rock"),
        ("E", "E: 1"),
    ],
)
def test_reasons_that_differ_otherwise_are_of_two_kinds(reasons):
    """The name of the exception and the words of its text."""
    assert [str(each) for each in error_kinds(reasons)] == sorted(reasons)


def test_what_is_equal_in_all_errors_of_a_kind_is_shown():
    """So is the only reason of a kind; the values of one part that differs are counted."""
    regions = ["EU-0"] * 3 + ["EU-1"] * 2 + ["EU-2", "EU-3", "EU-4"]
    [kind] = error_kinds([f"KeyError: no tariff for {each} in 2026" for each in regions])

    assert str(kind) == "KeyError: no tariff for … in 2026"
    assert (kind.error, kind.text) == ("KeyError", "no tariff for … in 2026")
    assert kind.most_frequent == "EU-0 3, EU-1 2, EU-2 1, and 2 more"
    [four] = error_kinds([f"KeyError: no tariff for {each} in 2026" for each in regions[:-1]])
    assert four.most_frequent == "EU-0 3, EU-1 2, EU-2 1, EU-3 1"
    assert str(*error_kinds(["E: no 'x' in 2026"] * 2)) == "E: no 'x' in 2026"
    assert error_kinds(["E: 1", "E: 2"])[0].most_frequent == ""  # each is another
    assert str(*error_kinds([""])) == "no reason given"


def test_kinds_beyond_the_limit_are_counted():
    """A bounded number of kinds is shown, whatever the reasons are."""
    words = [a + b for a in string.ascii_lowercase for b in string.ascii_lowercase][:100]
    kinds = error_kinds([f"{word}: x" for word in words] + ["aa: x"])

    assert kinds[0].number == 2
    assert further(kinds) == f"and {100 - MAX_KINDS} further kinds: {100 - MAX_KINDS} dead letters"
    assert further(kinds[:MAX_KINDS]) == ""


words = st.sampled_from(["order", "EU-1", "17", "'a b'", "/x/y", "None", "of", ":", "[", "]", ","])
reasons = st.lists(words, max_size=6).map(" ".join) | st.text(max_size=30)
some = st.lists(st.tuples(st.sampled_from(PAYLOADS) | reasons, st.integers(1, 9)), max_size=12)


@given(some, st.randoms())
def test_grouping_adds_up_and_does_not_depend_on_the_order(given_, random):
    """Each error is in one kind, the numbers add up, and no two kinds of an input are ordered by
    chance.
    """
    mixed = random.sample(given_, len(given_))

    kinds, others = (error_kinds(*map(list, zip(*each, strict=True))) if each else []
                     for each in (given_, mixed))  # fmt: skip

    assert sum(each.number for each in kinds) == sum(number for _, number in given_)
    assert sorted(n for each in kinds for n in each.members) == list(range(len(given_)))
    assert [each.number for each in kinds] == sorted((each.number for each in kinds), reverse=True)
    shown = [[(str(each), each.number, each.values) for each in found] for found in (kinds, others)]
    assert shown[0] == shown[1]
