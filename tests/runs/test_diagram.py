"""The picture of a flow: every queue and stage, with counts, for every shape of flow."""

from __future__ import annotations

import base64
import random
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import joins

from mousetrap import Batch, stage
from mousetrap.display.text_width import name_in_lines, text_width
from mousetrap.flows.flow import Flow, Step
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


NAME = st.text("abcdefghijklmnopqrstuvwxyzMW_.-<&$é✕日", min_size=1, max_size=40)


@st.composite
def flows(draw) -> list[Step]:
    """Return 1 to 12 steps with several targets, routes, exchanges, batches, joins and circles."""
    names = draw(st.lists(NAME, min_size=1, max_size=12, unique=True))
    chance = random.Random(draw(st.integers(0, 10**6)))
    queues = [f"{name} jobs" for name in names] + [f"{name} results" for name in names[:3]]
    steps = []
    for n, name in enumerate(names):
        writes = tuple(chance.sample(queues, min(len(queues), chance.randrange(4))))
        routes = writes[: chance.randrange(2)]
        exchanges = (f"{name} events",) if chance.random() < 0.2 else ()
        bound = (f"{names[0]} events",) if chance.random() < 0.1 else ()
        shape = chance.choice(["", "", "batch of 10,000", f"join of {chance.choice(names)}"])
        steps.append(Step(name, queues[n], writes, exchanges, (), bound, routes, shape))
    return steps


@given(flows(), st.booleans(), st.integers(0, 10**9))
def test_any_flow_fits_into_a_cell(steps, is_counted, number):
    """No box is on another, each word is in its box, in 11 pixels, and the picture is not large."""
    counts = {each.name: StageSummary(number, number, number, {}, {}) for each in steps}
    depths = dict.fromkeys([each.reads for each in steps], number)
    diagram = Diagram(steps, counts, depths, is_counted=is_counted)

    svg = diagram.svg()

    root = ET.fromstring(svg)
    width, height = float(root.get("width")), float(root.get("height"))
    assert width <= 860
    assert len(diagram.image()) <= 100_000
    boxes = []
    for group in root.iter(f"{SVG}g"):
        box = box_of(group)
        boxes.append(box)
        x, y, w, h = box
        assert 0 <= x <= x + w <= width
        assert 0 <= y <= y + h <= height
        for text in group.iter(f"{SVG}text"):
            size, is_bold = float(text.get("font-size")), text.get("font-weight") == "bold"
            assert size >= 11
            for line in lines_of(text):
                assert text_width(line, size, is_bold=is_bold) <= w - 6
        rows = sum(len(lines_of(text)) for text in group.iter(f"{SVG}text"))
        assert rows * 14 <= h
    for n, (x, y, w, h) in enumerate(boxes):
        for x2, y2, w2, h2 in boxes[n + 1 :]:
            assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y


def box_of(group) -> tuple[float, float, float, float]:
    rect = group.find(f"{SVG}rect")
    if rect is not None:
        return tuple(float(rect.get(name)) for name in ("x", "y", "width", "height"))
    numbers = re.findall(r"[\d.]+", group.find(f"{SVG}path").get("d"))  # of an exchange
    left, top, right, _, bottom = (float(numbers[n]) for n in (5, 1, 2, 3, 4))
    return left, top, right - left, bottom - top


def lines_of(text) -> list[str]:
    """Return the lines of a text; parts without a place of their own continue a line."""
    lines = [text.text or ""]
    for part in text:
        words = "".join(part.itertext()) + (part.tail or "")
        if part.get("dy"):
            lines.append(words)
        else:
            lines[-1] += words
    return [each for each in lines if each]


@given(NAME, st.integers(30, 130), st.booleans())
def test_a_name_keeps_its_ends_and_fits(name, room, is_bold):
    """It is whole if there is room, and cut in its middle if there is not."""
    lines = name_in_lines(name, room, 12, 3, is_bold=is_bold)

    whole = "".join(lines)
    assert len(lines) <= 3
    assert all(text_width(each, 12, is_bold=is_bold) <= room for each in lines)
    assert whole == name or (whole.count("…") == 1 and name.startswith(whole.split("…")[0]))


def test_a_diagram_says_what_is_a_batch_a_join_and_a_route():
    """By words in the box, and by a dotted line for a route."""

    @stage(reads="rows", writes="stored", batch=Batch(100))
    def store(rows: list[int]) -> list[int]:
        return rows

    steps = [*Flow([store]).steps, Step("check", "stored", ("end", "errors"), routes=("errors",)),
             Step("gather", "end", shape="join of check")]  # fmt: skip

    diagram = Diagram(steps, {}, {})

    assert ">batch of 100<" in diagram.svg()
    assert ">join of check<" in diagram.svg()
    assert diagram.svg().count('stroke-dasharray="1.5 2.5"') == 1


def test_flow_knows_routes_joins_and_batches():
    """They are in its steps, for the picture."""
    steps = {each.name: each for each in Flow([joins.split, joins.resize, joins.album]).steps}

    assert [each.shape for each in steps.values()] == ["", "", "join of split"]
    assert steps["resize"].routes == ("archive",)


def test_the_alternative_text_states_the_finding():
    """A reader who does not see the picture has its totals."""
    counts = {
        "fetch": StageSummary(1200, 3, 2, {}, {}),
        "process": StageSummary(1198, 0, 0, {}, {}),
    }

    image = Diagram(Flow([fetch, process]).steps, counts, {"start_fetch": 7}).image()

    assert 'alt="A flow of 2 stages: 2,398 done, 7 waiting, 3 retried, 2 dead. start_fetch' in image
    data = base64.b64decode(re.search(r"base64,([^\"]+)", image)[1])
    assert b"prefers-color-scheme:dark" in data
