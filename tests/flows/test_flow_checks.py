"""The rules by which a flow is checked when it is made, as a table: shape, level, text."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

import mousetrap
from mousetrap import Exchange, Queue, Send, stage
from mousetrap.errors import SettingsError
from mousetrap.flows.flow import Flow
from mousetrap.flows.near_names import is_near

orders = Exchange("orders", "topic")
states = Exchange("states", "direct")
alarms = Exchange("alarms", "fanout")


def one(name: str, reads: Any, writes: Any = None, returns: Any = Any, routes: Any = None) -> Any:
    """Return a stage that takes anything, and is annotated to return *returns*."""

    def function(data: Any) -> None: ...

    function.__name__ = name
    function.__annotations__["return"] = returns
    return stage(reads, writes, routes=routes)(function)


def bound(name: str, *bindings: Any) -> Queue:
    return Queue(name, bindings=list(bindings))


RIGHT = {
    "a line": [one("f", "a", "b", int), one("g", "b", "c", int)],
    "several entries": [one("f", "a", "c", int), one("g", "b", "d", int)],
    "fan-out": [one("f", "a", ["b", "c"], int), one("g", "b"), one("h", "c")],
    "a circle through a route": [
        one("f", "a", "b", int), one("g", "b", "c", int | Send, routes="a"),
    ],
    "a circle through a stage that may return None": [
        one("f", "a", "b", int), one("g", "b", "a", int | None),
    ],
    "a circle through an iterator": [one("f", "a", "b", int), one("g", "b", "a", Iterator[int])],
    "a word and its plural, where the word is the only entry": [one("f", "word", "words", int)],
    "numbered queues": [one("f", "a", "step1", int), one("g", "step2", "c", int)],
    "an exchange with its readers": [
        one("f", "a", [orders["de.paid"], states["paid"], alarms], int),
        one("g", bound("b", orders["*.paid"])), one("h", bound("c", states["paid"])),
        one("i", bound("d", alarms)),
    ],
    "an exchange with any key": [
        one("f", "a", orders[str], int), one("g", bound("b", orders["de.#"])),
    ],
    "a reader of another program's exchange": [one("g", bound("b", orders["*.paid"]))],
    "an exchange without a reader and a route with a key of each message": [
        one("f", "a", returns=Send, routes=orders), one("g", bound("b", orders["*.paid"])),
    ],
}  # fmt: skip

FOUND = {
    "no target for a Send": ("error", "f returns Send, and names no target", [
        one("f", "a", returns=Iterator[Send]),
    ]),
    "a circle without end": ("warning", "for ever: f → g → f, .* -> int | None", [
        one("f", "a", "b", int), one("g", "b", ["a", "results"], list[int]),
    ]),
    "a stage that writes its own queue": ("warning", "for ever: f → f", [one("f", "a", "a", int)]),
    "a circle through exchanges": ("warning", "for ever: f → g → f", [
        one("f", bound("a", alarms), orders["x"], int),
        one("g", bound("b", orders["#"]), alarms, int),
    ]),
    "a misspelt queue": ("warning", "to 'visits', which g reads, .* reads 'visit', which f", [
        one("f", "raw", "visit", int), one("g", "visits", "done", int),
    ]),
    "a misspelt key": ("warning", "f sends to orders.order.payed., .* orders.order.payd.", [
        one("f", "raw", orders["order.payed"], int), one("g", bound("b", orders["order.payd"])),
    ]),
    "a circle that may end": ("hint", "messages go round: f → g → f; it ends where", [
        one("f", "a", "b", int), one("g", "b", "a"),
    ]),
    "an exchange without a reader": ("hint", "no queue .* exchange 'alarms', to which f sends", [
        one("f", "a", alarms, int),
    ]),
    "a key without a reader": ("hint", "f sends to orders.scored., which matches no binding", [
        one("f", bound("a", orders["created"]), orders["scored"], int),
    ]),
    "a binding without a writer": ("hint", "'a' is bound by orders.created., and no stage", [
        one("f", bound("a", orders["created"]), orders["scored"], int),
    ]),
    "a route without a Send": ("hint", "f names the route b, and its annotation has no Send", [
        one("f", "a", "c", int, routes="b"),
    ]),
    "a target without a value": ("hint", "f returns None, so nothing but .*send goes to b", [
        one("f", "a", "b", None),
    ]),
    "a value without a target": ("hint", "f returns int, which is dropped", [
        one("f", "a", None, int),
    ]),
}  # fmt: skip


def checked(stages: Iterable[Any]) -> list[tuple[str, str]]:
    """Make a flow of *stages*; return the level and the text of each finding.

    Asserts that the warnings which it showed are its findings of that level.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            flow = Flow(stages)
        except SettingsError as error:
            return [("error", str(error))]
    shown = [each.text for each in flow.findings if each.level == "warning"]
    assert [str(each.message) for each in caught] == shown
    assert {each.filename for each in caught} <= {__file__}
    return [(each.level, each.text) for each in flow.findings]


@pytest.mark.parametrize("shape", RIGHT)
def test_a_right_flow_has_no_findings(shape):
    """Neither an error nor a warning, and not even a hint."""
    assert checked(RIGHT[shape]) == []


@pytest.mark.parametrize("shape", FOUND)
def test_what_is_wrong_is_found(shape):
    """With its level, and a text that names the stages."""
    level, text, stages = FOUND[shape]

    assert any(kind == level and re.search(text, each) for kind, each in checked(stages))


def test_findings_are_shown_once(settings):
    """A flow that is made of a flow keeps its findings, and does not warn again."""
    with pytest.warns(UserWarning, match="round for ever"):
        flow = Flow(one("f", "a", "a", int))
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        assert mousetrap.run(flow, settings).flow.findings == flow.findings != ()


@pytest.mark.parametrize(
    ("name", "other", "expected"),
    [
        ("visits", "visit", True), ("visits", "vistis", True), ("Visits", "visits", True),
        ("raw_lines", "raw-lines", True), ("measured", "meassured", True),
        ("archives", "archivez", True), ("visits", "visits", False), ("read", "road", False),
        ("raw", "row", False), ("raw", "raws", False), ("step1", "step2", False),
        ("a1", "a12", False), ("scored", "stored", False), ("visits", "archive", False),
    ],
)  # fmt: skip
def test_is_near(name, other, expected):
    """Capitals, separators, one letter; not short names, not numbers."""
    assert is_near(name, other) is is_near(other, name) is expected
