"""Targets: which of them each output goes to, and with which id."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mousetrap import Queue, Send
from mousetrap.errors import SettingsError
from mousetrap.model.exchanges import Exchange
from mousetrap.model.message import Message, child_id
from mousetrap.model.targets import OutputTargets

PARENT = Message(1, id="parent", attempt=2, past_retries=1, job="job")
names = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=5).filter(
    lambda name: not name.startswith("amq.")
)
orders = Exchange("orders", "topic")
alarms = Exchange("alarms", "fanout")


def sent(targets, *values):
    return list(targets.outputs(values, PARENT, "parse"))


def places(targets, *values):
    return [(str(each.target), each.message.data) for each in sent(targets, *values)]


@pytest.mark.parametrize(
    ("targets", "values", "expected"),
    [
        (OutputTargets(["a", "b"]), [1, 2], [("a", 1), ("b", 1), ("a", 2), ("b", 2)]),
        (OutputTargets("a", ["b"]), [1, Send(2, to="b")], [("a", 1), ("b", 2)]),
        (OutputTargets("a", "b"), [Send(2, to=Queue("b"))], [("b", 2)]),
        (OutputTargets(["a", Queue("b")]), [Send(3)], [("a", 3), ("b", 3)]),
        (OutputTargets(["a", "b"]), [Send(3, to="a")], [("a", 3)]),
        (OutputTargets(None, ["b"]), [1, Send(None, to="b")], [("b", None)]),
        (OutputTargets(["a", alarms]), ["x"], [("a", "x"), ("alarms[]", "x")]),
        (OutputTargets([orders["k"], orders[str]]), [7], [("orders[k]", 7), ("orders[7]", 7)]),
        (OutputTargets(None, [orders]), [Send(7, to=orders, key="x")], [("orders[x]", 7)]),
        (OutputTargets(None, [orders]), [Send(7, to=orders["y"])], [("orders[y]", 7)]),
        (OutputTargets(None, [orders[str]]), [Send(7, to=orders)], [("orders[7]", 7)]),
        (OutputTargets(None, [orders["k"]]), [Send(7, to=orders["k"])], [("orders[k]", 7)]),
        (OutputTargets(None, [alarms]), [Send(7, to=alarms)], [("alarms[]", 7)]),
    ],
)
def test_each_output_goes_to_its_targets(targets, values, expected):
    """A plain value, or a `Send` without a target: to each in `writes`; else to the one named."""
    assert places(targets, *values) == expected


@pytest.mark.parametrize(
    ("targets", "send", "reason"),
    [
        (OutputTargets("a", "b"), Send(1, to="c"), "to 'c', which is none of its targets (they a"),
        (OutputTargets("a", "b"), Send(1, to="c"), "(they are: 'a', 'b'): name it in routes"),
        (OutputTargets(), Send(1, to="c"), "(they are: none)"),
        (OutputTargets(), Send(1), "parse writes to no target"),
        (OutputTargets("orders"), Send(1, to=orders["k"]), "to orders[k], which is none"),
        (OutputTargets("a", orders["k"]), Send(1, to=orders, key="x"), "with the key 'x', which"),
        (OutputTargets("a", orders["k"]), Send(1, to="orders"), "to 'orders', which is none"),
        (OutputTargets("a", orders), Send(1, to=orders), "without a routing key: give Send(..., k"),
        (OutputTargets("a"), Send(1, to=3), "to 3, which is none of its targets"),
    ],
)
def test_a_target_that_is_not_named_is_an_error_that_names_the_others(targets, send, reason):
    """Which is a mistake in the function or in its stage: nothing is sent anywhere else."""
    with pytest.raises(SettingsError) as error:
        sent(targets, send)

    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("writes", "routes", "reason"),
    [
        (["a", "a"], None, "'a' is named twice"),
        (None, ["a", "b", "a"], "'a' is named twice"),
        ([orders], None, "the exchange 'orders' without a routing key: give orders[key]"),
        ([["a"]], None, "writes names ['a'], which is no target"),
        (None, [None], "routes names None, which is no target"),
        ("amq.x", None, "starts with 'amq.'"),
    ],
)
def test_targets_that_cannot_work_are_refused(writes, routes, reason):
    """Where the stage is defined."""
    with pytest.raises(SettingsError) as error:
        OutputTargets(writes, routes)

    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"priority": 256}, "priority 256: it must be a whole number in 0..255"),
        ({"priority": True}, "priority True"),
        ({"priority": 1.5}, "priority 1.5"),
        ({"headers": {"mousetrap-job": "x"}}, "'mousetrap-job'"),
        ({"headers": {"CC": ["x"]}}, "name several targets instead"),
        ({"headers": {"x": object()}}, "AMQP cannot encode the value of header 'x'"),
    ],
)
def test_send_refuses_properties_that_cannot_be_sent(arguments, reason):
    """Where it is made: in the handler, whose message fails."""
    with pytest.raises(ValueError) as error:
        Send(1, to="a", **arguments)

    assert reason in str(error.value)


def test_outputs_are_children_with_their_properties():
    """Parent, job and retries as of any output; headers and priority as given."""
    [each] = sent(OutputTargets("a"), Send("x", priority=7, headers={"h": 1}))
    message = each.message

    assert (message.parent, message.job, message.past_retries) == ("parent", "job", 2)
    assert (message.body, dict(message.headers), each.options.priority) == (b'"x"', {"h": 1}, 7)


def test_a_plain_output_has_the_same_id_with_a_priority_or_another_target_behind_it():
    """So such a change of a stage does not make a sink store anything twice."""
    alone = [each.message.id for each in sent(OutputTargets("a"), Send(1), 2)]
    more = sent(OutputTargets(["a", "b"], ["c"]), Send(1, priority=1), Send(0, to="c"), 2)

    assert alone == [child_id("parent", "parse", n) for n in range(2)]
    assert [each.message.id for each in more if each.target == "a"] == alone


@given(
    writes=st.lists(names, max_size=3, unique=True),
    routes=st.lists(names, max_size=3, unique=True),
    numbers=st.lists(st.integers(-3, 3), max_size=8),
)
def test_no_two_outputs_have_the_same_id(writes, routes, numbers):
    """Whatever the names of the targets, and the same ids each time."""
    targets = OutputTargets(writes, routes)
    known = (*writes, *routes)
    values = [n if n < 0 or not known else Send(n, to=known[n % len(known)]) for n in numbers]
    ids = [each.message.id for each in sent(targets, *values)]
    plain = sum(not isinstance(each, Send) for each in values)

    assert ids == [each.message.id for each in sent(targets, *values)]
    assert len(set(ids)) == len(ids) == plain * len(writes) + len(values) - plain
