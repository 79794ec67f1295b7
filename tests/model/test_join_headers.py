"""Which group each output belongs to, where it goes, and which notices are sent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mousetrap.errors import Reject, UndecodableMessage
from mousetrap.model.join_groups import bundle, end_mark, has_missing_parts, joined, parts, received
from mousetrap.model.join_headers import (
    JOINS,
    MAX_PARTS,
    JoinPoint,
    Missing,
    death_notices,
    entries_of,
    route,
)
from mousetrap.model.join_tree import JoinTree, ReportKind
from mousetrap.model.message import Message

ALBUM = JoinPoint("album.join", "thumbs", ("images", "sharp", "thumbs"))
BOOK = JoinPoint("book.join", "albums", ("files", "images", "sharp", "thumbs", "albums"))


def handled(message, stage, values, targets, joins=()):
    """Route one output per target, as a handling of *message* by *stage* does."""
    outputs = [(message.child(value, stage, n), targets[n]) for n, value in enumerate(values)]
    return route(message, stage, joins, outputs)


class Network:
    """Handles messages in any order, twice if asked, and collects what arrives at the joins."""

    def __init__(self, chance):
        self.chance = chance
        self.trees = {}

    def add(self, message, queue):
        entry, reports, _ = received(message, queue)
        tree, _ = self.trees.setdefault((queue, entry.source), (JoinTree(), entry))
        for each in reports:
            tree.add(each.path, each.kind, each)
        return tree, entry


@given(st.randoms(use_true_random=False), st.integers(0, 5))
@hypothesis_settings(max_examples=100, deadline=None)
def test_every_shape_between_split_and_join_is_complete_exactly_at_its_end(chance, size):
    """Stages drop, multiply, retry, dead-letter and loop; branches elsewhere are not waited for."""
    network = Network(chance)
    job = Message("job")
    waiting = [(job, "files", "")]
    order = {}
    while waiting:
        message, queue, place = waiting.pop(chance.randrange(len(waiting)))
        if queue == "album.join":
            tree, _ = network.add(message, queue)
            order[message.id] = place
            assert tree.is_complete == (not waiting)
            continue
        if queue == "images" and chance.random() < 0.2:
            produced = [(*each, place) for each in death_notices(message, queue, "bad")]
            produced = [(m, q, p) for m, q, p in produced]
        else:
            number = size if queue == "files" else chance.choice([0, 1, 1, 2, 3])
            choice = ["images"] if queue == "files" else ["thumbs", "thumbs", "archive", "sharp"]
            if len(place) > 6:
                choice = ["thumbs", "archive"]
            targets = [chance.choice(choice) for _ in range(number)]
            joins = [ALBUM] if queue == "files" else []
            done = handled(message, queue, range(number), targets, joins)
            again = handled(message, queue, range(number), targets, joins)
            assert [(m.id, m.headers, q) for m, q in done.outputs] == [
                (m.id, m.headers, q) for m, q in again.outputs
            ]
            assert [m.id for m, _ in done.notices] == [m.id for m, _ in again.notices]
            produced = [
                (m, q, f"{place}{n}") for n, (m, q) in enumerate(done.outputs) if q != "archive"
            ]
            assert all(JOINS not in m.headers for m, q in done.outputs if q == "archive")
            produced += [(m, q, place) for m, q in done.notices]
        waiting += produced
    [(tree, entry)] = network.trees.values()
    assert tree.is_complete
    leaves = [leaf for leaf in tree.leaves() if leaf.kind is ReportKind.PART]
    places = [order[leaf.value.id] for leaf in leaves]
    assert places == sorted(places)
    assert entry.group == entries_of_group(job)


def entries_of_group(job):
    [(notice, _)] = handled(job, "files", [], [], [ALBUM]).notices
    return entries_of(notice.headers)[0].group


def test_step_of_one_to_one_sends_nothing_but_its_output():
    """It adds no notice, and nothing to the path: the header stays as it is."""
    [(part, _), *_] = handled(Message(0), "split", [0, 1], ["images"] * 2, [ALBUM]).outputs

    routed = handled(part, "sharpen", ["x"], ["sharp"])
    [(output, queue)] = routed.outputs

    assert (routed.notices, queue) == ([], "sharp")
    assert output.headers == part.headers


def test_message_without_the_header_is_left_as_it_is():
    """It belongs to no join; nor does one with a header that another client made up."""
    for headers in ({}, {JOINS: "[["}, {JOINS: 7}, {JOINS: '[["a"]]'}):
        message = Message(1, headers=headers)
        routed = handled(message, "resize", ["x"], ["thumbs"])

        assert [(m.headers, q) for m, q in routed.outputs] == [({}, "thumbs")]
        assert routed.notices == death_notices(message, "images", "bad") == []


def test_join_inside_a_join_stands_for_all_that_it_collects():
    """The outer join waits for one message of the inner one, also if that has no part."""
    book = Message("book")
    [(first, _), (second, _)] = handled(book, "unpack", "ab", ["files"] * 2, [BOOK]).outputs
    network = Network(None)
    done = handled(first, "split", [1, 2], ["images"] * 2, [ALBUM])
    assert done.notices == []
    for image, _ in done.outputs:
        [(part, queue)] = handled(image, "resize", ["t"], ["thumbs"]).outputs
        tree, entry = network.add(part, queue)
    album = joined(entry, tree.leaves(), part)
    [(notice, queue)] = handled(second, "split", [], [], [ALBUM]).notices
    empty_tree, empty_entry = network.add(notice, queue)
    empty = joined(empty_entry, empty_tree.leaves(), notice)
    for each in (album, empty):
        [(output, queue)] = handled(each, "album", ["an album"], ["albums"]).outputs
        outer, _ = network.add(output, queue)

    assert [each.is_complete for each in (tree, empty_tree, outer)] == [True] * 3
    assert (album.body, empty.body) == (b'["t","t"]', b"[]")
    assert queue == "book.join"
    assert [leaf.value.body for leaf in outer.leaves()] == [b'"an album"'] * 2


def test_dead_group_of_an_inner_join_is_a_dead_part_of_the_outer_one():
    """Its dead letter carries the entries of the joins around it."""
    [(first, _)] = handled(Message("book"), "unpack", "a", ["files"], [BOOK]).outputs
    [(part, _)] = handled(first, "split", [1], ["thumbs"], [ALBUM]).outputs
    entry, reports, _ = received(part, "album.join")
    outer = Message(headers={JOINS: joined(entry, [], part).headers[JOINS]})

    [(notice, queue)] = death_notices(outer, "thumbs", "it failed")

    assert queue == "book.join"
    assert received(notice, queue).reports[0].kind is ReportKind.DEAD
    assert len(reports) == 1


def test_messages_of_a_group_survive_the_wire():
    """A joined list, missing parts in their places, a bundle that goes on, and the end mark."""
    outputs = handled(Message("f"), "split", "abc", ["images"] * 3, [ALBUM]).outputs
    [notice] = death_notices(outputs[1][0], "images", "ValueError: no")
    arrived = [
        handled(outputs[0][0], "resize", [{"n": 1}], ["thumbs"]).outputs[0], notice,
        handled(outputs[2][0], "resize", [{"n": 3}], ["thumbs"]).outputs[0],
    ]  # fmt: skip
    found = [received(*each) for each in arrived]
    tree = JoinTree()
    for each in found:
        for report in each.reports:
            tree.add(report.path, report.kind, report)
    entry = found[0].entry
    message = joined(entry, tree.leaves(), arrived[0][0])
    again = received(bundle(entry, [r for e in found for r in e.reports], message), "album.join")

    missing = Missing("ValueError: no", "images", outputs[1][0].id)
    assert has_missing_parts(message.body)
    assert parts(message.body, dict[str, int]) == [{"n": 1}, missing, {"n": 3}]
    assert list(again.reports) == [found[0].reports[0], found[2].reports[0]]  # it waits for one
    assert received(end_mark(entry, message, "failed"), "album.join").ended == "failed"
    with pytest.raises(UndecodableMessage, match="part 0"):
        parts(message.body, list[int])


@pytest.mark.parametrize(
    ("body", "kind"),
    [(b"", ReportKind.PART), (b'{"a": 1}', ReportKind.PART), (b"{1]", ReportKind.DEAD)],
)
def test_part_that_is_no_json_is_a_missing_one(body, kind):
    """A handler may send ready-made bytes; an empty body is None."""
    [(part, _)] = handled(Message("f"), "split", [body], ["thumbs"], [ALBUM]).outputs

    [report] = received(part, "album.join").reports

    assert report.kind is kind
    assert report.size >= len(bundle(entries_of(part.headers)[0], [report], part).body) - 2


def test_more_parts_than_a_join_takes_are_refused_where_they_are_made():
    """The message that was split is dead-lettered, with the limit in the reason."""
    number = MAX_PARTS + 1
    with pytest.raises(Reject, match=r"10,001 outputs .* up to 10,000 parts"):
        handled(Message("f"), "split", range(number), ["images"] * number, [ALBUM])


def test_circle_that_multiplies_without_end_is_stopped():
    """Each turn makes the path longer; it ends with a reason before no frame can hold it."""
    [(part, _)] = handled(Message("f"), "split", [0], ["images"], [ALBUM]).outputs

    def turn_again(part):
        for _ in range(100):
            (part, _), _ = handled(part, "again", [0, 1], ["images"] * 2).outputs

    with pytest.raises(Reject, match="a circle without end"):
        turn_again(part)
