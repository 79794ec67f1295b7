"""What a panel says, and how it looks, for given figures."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from support.lengths import measure, show

import mousetrap
from mousetrap import Panel
from mousetrap.display.formats import duration
from mousetrap.flows.flow import Step
from mousetrap.model.ledger_progress import JobCounts
from mousetrap.notebook import panel_html, panel_text, panel_words
from mousetrap.notebook.freshness import AsOf
from mousetrap.notebook.stats_source import StageView, View
from mousetrap.runtime import clock

NOW = 1_796_000_000.0  # seconds since 1970
PRICE = StageView(
    Step("price", "orders", ("priced",)), 1218, 207, 4, 192.0, (0.0,) * 58 + (180.0, 192.0),
    waiting=364, in_progress=5, prefetch=16, waiting_retry=12, oldest="7 s", in_work=0.3,
    state="open", next_retry=0.4,
)  # fmt: skip
INVOICE = StageView(
    Step("invoice", "priced", ("invoices",)), 967, 0, 0, 131.0, (0.0,) * 58 + (120.0, 131.0),
    waiting=231, in_progress=4, prefetch=10, waiting_retry=0, oldest="1 s", state="open",
)  # fmt: skip
RUN = View(
    "run visl-dc7ecf98", "RabbitMQ 4.3.6 on localhost:5672", "open", (PRICE, INVOICE),
    {"invoices": 967}, "result", unit="job", jobs=JobCounts(1500, 967, 529, 4),
    started=NOW - 7, left=4.0,
)  # fmt: skip
ENDED = replace(
    RUN, state="closed", jobs=JobCounts(1500, 1488, 0, 12), ended=NOW + 5.1, left=None,
    stages=tuple(replace(each, state="closed") for each in RUN.stages),
)  # fmt: skip
WORKERS = replace(RUN, title="2 workers", unit="message", left=None, queue_label="waiting")
LOST = replace(RUN, lost="the queues of run visl-dc7ecf98 are gone")


@pytest.fixture
def now(monkeypatch):
    monkeypatch.setattr(clock, "steady_time", lambda: NOW)


def in_stage(**changes) -> View:
    return replace(RUN, stages=(replace(PRICE, **changes), INVOICE))


@pytest.mark.parametrize(
    ("view", "says"),
    [
        (RUN, "● Running for 7 s, about 4 s left"),
        (replace(RUN, left=None), "● Running for 7 s"),
        (replace(RUN, state="new"), "○ Not started"),
        (replace(RUN, jobs=JobCounts()), "● Ready: no job was sent so far"),
        (replace(RUN, jobs=ENDED.jobs), "● Open: all 1,500 jobs accounted for so far"),
        (in_stage(state="connecting"), "↻ Running for 7 s, but price is connecting"),
        (in_stage(state="failed"), "✕ Running for 7 s, but price has failed"),
        (in_stage(state="closed"), "✕ Running for 7 s, but price has stopped"),
        (replace(RUN, stages=(replace(PRICE, state="blocked"),) * 3),
         "↻ Running for 7 s, but price is blocked and 2 other stages"),
        (LOST, "✕ Lost its queues: 529 of 1,500 jobs have no outcome"),
        (ENDED, "■ Settled: all 1,500 jobs accounted for in 12.1 s"),
        (replace(ENDED, jobs=JobCounts(1, 1)), "■ Settled: the only job accounted for in 12.1 s"),
        (replace(ENDED, jobs=RUN.jobs), "■ Stopped: 529 of 1,500 jobs have no outcome"),
        (replace(ENDED, jobs=JobCounts(2, 1, 1)), "■ Stopped: 1 of 2 jobs has no outcome"),
        (replace(ENDED, jobs=JobCounts()), "■ Ended: no job was sent"),
        (replace(RUN, state="ended"),
         "■ Ended with the kernel: 529 of 1,500 jobs have no outcome"),
        (WORKERS, "● Working"),
        (replace(WORKERS, stages=()), "● Waiting for messages"),
        (replace(WORKERS, state="closed"), "■ Stopped"),
        (replace(WORKERS, state="replaced"), "■ Replaced"),
        (replace(in_stage(state="failed"), state="failed"), "✕ Failed: price"),
    ],
)  # fmt: skip
def test_verdict_answers_first(view, says, now):
    """Is it finished, when, is anything wrong: in one sentence."""
    assert str(panel_words.verdict(view)) == says


@pytest.mark.parametrize(
    ("view", "says"),
    [
        (RUN, "967 of 1,500 jobs done (64 %) · 529 under way · 4 dead · 0 lost"),
        (ENDED, "1,488 done (99 %) · 12 dead · 0 lost · mean 123 per s"),
        (LOST, "967 of 1,500 jobs done (64 %) · 0 under way · 4 dead · 529 lost"),
        (replace(RUN, jobs=JobCounts()), "0 jobs"),
        (WORKERS, "967 of 1,500 messages done (64 %) · 529 waiting or in work · 4 dead"),
        (replace(WORKERS, jobs=None), "2,185 messages done · 4 dead"),
    ],
)
def test_totals_add_up(view, says):
    """Done, under way, dead and lost are all there is."""
    assert " · ".join(panel_words.totals(view)) == says


def test_the_slowest_stage_and_the_next_calls_have_a_line_each(now):
    """In the text and, from the same words, in the HTML; a line without words stays there."""
    known = replace(RUN, spent={"price": 0.4, "invoice": 3.4}, next=("run.settle()", "dead(run)"))
    at = AsOf("2026-11-30 00:13:48", "")
    lines = panel_text.text(known, at, 20).splitlines()
    html = panel_html.section(known, at, 20, is_drawn=True, is_one_of_many=False)

    assert lines[2] == "Slowest stage: invoice, 3.4 s per message (wait and handling)"
    assert "Next: run.settle() · dead(run)" in lines
    assert f"<div>{lines[2]}</div>" in html
    assert ">dead(run)</code>" in html
    empty = panel_html.section(RUN, at, 20, is_drawn=True, is_one_of_many=False)
    assert empty.count("<div>&nbsp;</div>") == 1


def test_a_stopped_worker_is_no_trouble_beside_others_or_at_the_end():
    """Somebody has stopped it; of a run, no worker may stop before the run does."""
    stopped = in_stage(state="closed").stages

    assert panel_words.verdict(replace(WORKERS, stages=stopped)).sign == "●"
    assert panel_words.problems(replace(ENDED, stages=stopped), 20) == []
    assert panel_words.problems(replace(RUN, stages=stopped), 20) == ["price has stopped"]


def test_foot_has_what_else_is_known():
    """What waits for a retry or is long in work, results, the scale; and what does not change."""
    slow = replace(in_stage(in_work=75.2), reconnects=("price reconnected 2×",))

    changes, stays, now = panel_words.foot(slow, AsOf("2026-11-30 00:13:48", ""))

    assert now == ["price: 12 wait for a retry, the next in 0.4 s", "longest in work 75 s (price)"]
    assert changes == [
        "967 results in invoices", "bars to 200 per s", "as of 2026-11-30 00:13:48",
    ]  # fmt: skip
    assert stays == [
        "run visl-dc7ecf98", "RabbitMQ 4.3.6 on localhost:5672", "prefetch 10 to 16",
        "price reconnected 2×",
    ]  # fmt: skip


def test_connection_is_shown_only_when_it_is_not_well():
    """A line says which stage has none and why; otherwise nothing is said of connections."""
    cut = in_stage(state="connecting", problem="ConnectionRefusedError")

    assert panel_words.problems(RUN, 20) == []
    assert panel_words.problems(cut, 20) == ["price is connecting: ConnectionRefusedError"]
    assert panel_words.problems(LOST, 20) == ["the queues of run visl-dc7ecf98 are gone"]


# ---- how it looks --------------------------------------------------------------------------------


def pictures_in(html: str) -> list[tuple[str, ElementTree.Element, str, str]]:
    """Return the alternative text, the SVG and the size of each picture."""
    found = re.findall(
        r'<img alt="([^"]*)" src="data:image/svg\+xml;base64,(.*?)" width="(\d+)" height="(\d+)"',
        html,
    )
    return [(alt, ElementTree.fromstring(base64.b64decode(data)), width, height)
            for alt, data, width, height in found]  # fmt: skip


def test_panel_has_a_bar_and_a_table_with_pictures(settings):
    """Each picture is an image with a size and says what it shows; nothing in it acts."""
    html = Panel(mousetrap.run([measure, show], settings)).bundle()["text/html"]

    bar, *minutes = pictures_in(html)
    assert [each[0] for each in (bar, *minutes)] == [
        "0 jobs", "measure: at most 0 per s in the last minute",
        "show: at most 0 per s in the last minute",
    ]  # fmt: skip
    for _, picture, width, height in (bar, *minutes):
        assert (picture.get("width"), picture.get("height")) == (width, height)
    assert html.count("<tr>") == 3
    assert "script" not in html.lower()


def test_panel_of_a_run_that_has_ended_is_the_same_whenever_it_is_drawn(settings):
    """Verdict, rates and the last minute come from the ledger, not from what a panel saw."""
    with mousetrap.run([measure, show], settings) as run:
        shown = Panel(run)
        run.send_many(["mouse", "", "trap"])
        run.settle(timeout=20)
        live = shown.render(shown.poll(), end="")["text/plain"]
    summary = run.summary()

    first, again = shown.bundle(), Panel(run).bundle()

    assert live.startswith("● Open: all 3 jobs accounted for so far\n2 of 3 jobs done (67 %)")
    assert first == again
    verdict, totals, *_ = first["text/plain"].splitlines()
    assert verdict == f"■ Settled: all 3 jobs accounted for in {duration(summary.seconds)}"
    assert totals.startswith("2 done (67 %) · 1 dead · 0 lost · mean ")
    assert "█" in first["text/plain"]
    assert re.search(r" · ended [\d-]+ [\d:]+$", first["text/plain"], re.MULTILINE)


def test_each_fact_has_its_cell_and_sign(now):
    """Retried and dead have a sign, a long name is cut in its middle and in full in its title."""
    long = "customer_archive_price_normalised_v2"
    views = [replace(RUN, stages=(replace(PRICE, step=Step(long, "orders")), INVOICE))]

    html = Panel([]).render(views, end="")["text/html"]
    text = re.sub(r"<[^>]+>", "", html)

    assert f'title="{long}"' in html
    assert "customer_arch…_normalised_v2" in text
    assert "↻ 207" in text
    assert "✕ 4" in text
    assert "↻ 0" not in text
    bar, *_ = pictures_in(html)
    assert bar[0] == "967 of 1,500 jobs done (64 %), 529 under way, 4 dead, 0 lost"
    assert "prefetch 10 to 16" in text
