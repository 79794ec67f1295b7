"""Flows: which queues hang together, and how that looks."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from mousetrap import stage
from mousetrap.errors import SettingsError
from mousetrap.flows.flow import Flow, reference
from mousetrap.model.summary import StageSummary
from mousetrap.run_fetch_worker import fetch
from mousetrap.run_processing_worker import process
from mousetrap.runs.diagram import Diagram

SVG = "{http://www.w3.org/2000/svg}"


def one(name, reads, writes=None):
    def function(n: int) -> int:
        return n

    function.__name__ = name
    return stage(reads, writes)(function)


DIAMOND = [
    one("split", "in", "middle"),
    one("left", "middle", "out"),
    one("right", "middle", "out"),
    one("join", "out", "end"),
]


def test_flow_knows_its_ends():
    """Jobs go in where nobody writes, results come out where nobody reads."""
    flow = Flow([process, fetch])

    assert (flow.entries, flow.results) == (["start_fetch"], ["results"])
    assert flow.entry() == "start_fetch"
    assert Flow(flow).stages == flow.stages
    assert Flow(fetch).stages == [fetch]


def test_flow_in_a_circle_has_no_entry():
    """Then the sender has to say where to begin."""
    with pytest.raises(SettingsError, match=r"say which queue to send to \(to=...\): one of a, b"):
        Flow([one("there", "a", "b"), one("back", "b", "a")]).entry()


def test_reference_names_a_stage_for_other_processes():
    """The module and the attribute by which it can be imported."""
    assert reference(fetch) == "mousetrap.run_fetch_worker:fetch"


def picture(stages, records=None, queues=None):
    diagram = Diagram(Flow(stages).steps, records or {}, queues or {})
    root = ET.fromstring(diagram.svg())
    texts = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
    boxes = [
        (float(r.get("x")), float(r.get("y")), float(r.get("width")), float(r.get("height")))
        for g in root.iter(f"{SVG}g")
        for r in g.iter(f"{SVG}rect")
    ]
    return diagram, root, texts, boxes


def test_diagram_shows_queues_stages_and_counts():
    """Each queue and each stage once, with what waits and what was done."""
    records = {"fetch": StageSummary(1200, 3, 2, {}, {})}

    diagram, _, texts, _ = picture([fetch, process], records, {"results": 7})

    assert {"start_fetch", "fetch", "data_processing", "process", "results"} <= set(texts)
    assert "1,200 done · 3 retried · 2 dead" in texts
    assert "7 out" in texts
    assert "start_fetch (0) → fetch → data_processing (0): 1,200 done, 3 retried, 2 dead" in repr(
        diagram
    )


@pytest.mark.parametrize(
    "stages",
    [
        [fetch, process],
        DIAMOND,
        [one("there", "a", "b"), one("back", "b", "a")],
        [one(f"s{n}", f"q{n}", f"q{n + 1}") for n in range(8)],
        [one("alone", "a")],
        [one("self", "a", "a")],
    ],
    ids=["line", "diamond", "circle", "long", "alone", "self"],
)
def test_diagram_draws_every_shape_of_flow(stages):
    """Nothing lies on anything else, and everything lies within the picture."""
    _, root, _, boxes = picture(stages)

    width, height = float(root.get("width")), float(root.get("height"))
    flow = Flow(stages)
    assert len(boxes) == len(stages) + len({*flow.reads, *flow.writes})
    for n, (x, y, w, h) in enumerate(boxes):
        assert 0 <= x <= x + w <= width
        assert 0 <= y <= y + h <= height
        for x2, y2, w2, h2 in boxes[n + 1 :]:
            assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y


def test_diagram_obeys_no_markup():
    """A queue may be called anything; in the picture it is text."""
    _, root, texts, _ = picture([one("<script>", "<b>&amp;\u202e", "$x$")])

    assert root.findall(f".//{SVG}script") == []
    assert "<b>&amp;\\u202e" in texts
