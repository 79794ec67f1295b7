"""The picture of a flow: every queue and stage, with counts, for every shape of flow."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from mousetrap import stage
from mousetrap.flows.flow import Flow
from mousetrap.model.summary import StageSummary
from mousetrap.run_fetch_worker import fetch
from mousetrap.run_processing_worker import process
from mousetrap.runs.diagram import Diagram

SVG = "{http://www.w3.org/2000/svg}"


def one(name, reads, writes=None):
    def function(n: int) -> int | None:
        return n

    function.__name__ = name
    return stage(reads, writes)(function)


JOINED = [
    one("split", "in", "middle"),
    one("left", "middle", "out"),
    one("right", "side", "out"),
    one("join", "out", "end"),
]


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
    """Each queue and stage is there once, with its counts."""
    records = {"fetch": StageSummary(1200, 3, 2, {}, {})}

    diagram, _, texts, _ = picture([fetch, process], records, {"results": 7})

    assert {"start_fetch", "fetch", "data_processing", "process", "results"} <= set(texts)
    assert {"1,200 done", "3 retried · 2 dead"} <= set(texts)
    assert "7 out" in texts
    assert "start_fetch (0) → fetch → data_processing (0): 1,200 done, 3 retried, 2 dead" in repr(
        diagram
    )


@pytest.mark.parametrize(
    "stages",
    [
        [fetch, process],
        JOINED,
        [one("there", "a", "b"), one("back", "b", "a")],
        [one(f"s{n}", f"q{n}", f"q{n + 1}") for n in range(8)],
        [one("alone", "a")],
        [one("self", "a", "a")],
    ],
    ids=["line", "joined", "circle", "long", "alone", "self"],
)
def test_diagram_draws_every_shape_of_flow(stages):
    """No shapes overlap, and all are inside the picture."""
    _, root, _, boxes = picture(stages)

    width, height = float(root.get("width")), float(root.get("height"))
    flow = Flow(stages)
    assert len(boxes) == len(stages) + len({*flow.reads, *flow.writes})
    for n, (x, y, w, h) in enumerate(boxes):
        assert 0 <= x <= x + w <= width
        assert 0 <= y <= y + h <= height
        for x2, y2, w2, h2 in boxes[n + 1 :]:
            assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y


def test_diagram_escapes_names():
    """Whatever a queue is called, its name is only text in the picture."""
    _, root, texts, _ = picture([one("<script>", "<b>&lt;\u202e", "$x$")])

    assert root.findall(f".//{SVG}script") == []
    assert "<b>&lt;\\u202e" in texts
