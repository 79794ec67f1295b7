"""The pictures: what they show of a run, of places, and of faults."""

from __future__ import annotations

import io
import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mousetrap.display.design_tokens import DEAD, GROUND, MUTED, TEXT
from mousetrap.fetch_data import fetch_data
from mousetrap.flows.flow import Step
from mousetrap.model.ledger import Ledger
from mousetrap.model.ledger_progress import JobCounts
from mousetrap.model.message import child_id
from mousetrap.model.outcome import Outcome, outputs_to, pack
from mousetrap.process_data import process_data
from mousetrap.runs import plot, plot_progress, plot_recovery
from mousetrap.runs.plot import FaultRow
from mousetrap.runs.plot_canvas import spread

START = 1_000_000.0  # seconds since 1970


@pytest.fixture
def pyplot():
    """Draw without a screen, and close all figures afterwards."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    yield pyplot
    pyplot.close("all")


@pytest.fixture
def ledger():
    """Return a ledger of ten jobs, sent at once and handled in 1 s each; the last one died."""
    ledger = Ledger(["numbers"])
    for n in range(10):
        ledger.sent(f"job-{n}", "numbers", START)
        outcome = Outcome(
            id=f"job-{n}", kind="done" if n < 9 else "dead", stage="count", queue="numbers",
            worker="here:1", begun=START + n, seconds=1.0,
        )  # fmt: skip
        ledger.add([outcome], outcome.ended)
    return ledger


def words_of(figure) -> list:
    """Return all texts that are drawn."""
    from matplotlib.text import Text

    return [each for each in figure.findobj(Text) if each.get_text() and each.get_visible()]


def chain(jobs: int, died: dict[int, float], stages=("count",), seconds: float = 0.1):
    """Return a ledger of jobs through *stages*, and its steps; *died* has when jobs were dead."""
    steps = [Step(name, f"q{n}", (f"q{n + 1}",)) for n, name in enumerate(stages)]
    ledger = Ledger([each.reads for each in steps])
    for job in range(jobs):
        ledger.sent(f"job-{job}", "q0", START)
        ledger.confirmed(f"job-{job}")
        id, parent, begun = f"job-{job}", None, START + job * seconds
        for n, step in enumerate(steps):
            is_dead = job in died and n == 0
            outcome = Outcome(
                id, "dead" if is_dead else "done", step.name, step.reads, "here:1",
                START + died[job] - seconds if is_dead else begun, seconds, 1, f"job-{job}", parent,
                outputs_to(f"q{n + 1}", 0 if is_dead else 1), reason="ValueError: no luck",
            )  # fmt: skip
            ledger.add_packed(pack([outcome]), outcome.ended)
            if is_dead:
                break
            id, parent, begun = child_id(id, step.name, 0), id, outcome.ended
    return ledger, steps


def png_size(pyplot) -> tuple[int, int, int]:
    """Return width, height and bytes of the picture that a notebook shows."""
    file = io.BytesIO()
    pyplot.gcf().savefig(file, bbox_inches="tight")  # as the inline backend does
    data = file.getvalue()
    width, height = struct.unpack(">II", data[16:24])
    return width, height, len(data)


def test_run_says_what_became_of_the_jobs_and_labels_each_line(pyplot, ledger):
    """Done and dead add up to sent, and each line has its number and name at its end."""
    plot.run(ledger)

    flow, times = pyplot.gcf().axes
    lines = {line.get_label(): line.get_ydata()[-1] for line in flow.lines}
    texts = [each.get_text() for each in words_of(pyplot.gcf())]
    assert lines == {"sent": 10, "count": 9, "dead": 1}
    assert {"10 sent", "9 count", "✕ 1 dead"} <= set(texts)
    assert "All 10 jobs accounted for in 10 s: 9 done, 1 dead; half within 5 s" in texts
    assert "How long 9 jobs took" in texts
    assert {"half within 5 s", "all within 9 s"} <= set(texts)
    assert flow.get_legend() is times.get_legend() is None


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        (JobCounts(0, 0, 0, 0), "No job was sent"),
        (JobCounts(1, 1, 0, 0), "The job was done in 12.1 s"),
        (JobCounts(1500, 1500, 0, 0), "All 1,500 jobs done in 12.1 s; half within 590 ms"),
        (JobCounts(1500, 1488, 0, 12),
         "All 1,500 jobs accounted for in 12.1 s: 1,488 done, 12 dead; half within 590 ms"),
        (JobCounts(3, 0, 0, 3), "All 3 jobs dead after 12.1 s"),
        (JobCounts(1500, 967, 529, 4),
         "967 of 1,500 jobs done after 12.1 s; 4 dead; 529 under way"),
        (JobCounts(1, 0, 1, 0), "0 of 1 job done after 12.1 s; 1 under way"),
    ],
)  # fmt: skip
def test_the_heading_of_a_run_is_the_finding(jobs, expected):
    assert plot_progress.finding(jobs, 12.1, 0.59) == expected


STAGES = tuple(f"normalise_the_price_of_customer_number_{n}" for n in range(25))


@pytest.mark.parametrize(
    ("jobs", "died", "stages", "faults"),
    [
        (60, {58: 1.0, 59: 5.0}, ("count",), None),  # after a retry delay
        (60, {59: 3600.0}, ("count",), None),
        (0, {}, ("count",), None),
        (1, {}, ("count",), None),
        (1, {0: 1.0}, ("count",), None),
        (40, {1: 1.0}, STAGES[:10], None),
        (4, {}, STAGES, None),
        (60, {59: 5.0}, ("count",), [(9.0, 0.0), (-50.0, None)]),
        (60, {}, ("count",), [(n / 10, n / 100) for n in range(300)]),
        (0, {}, ("count",), []),
    ],
)  # fmt: skip
def test_a_picture_has_its_size_whatever_is_drawn(pyplot, jobs, died, stages, faults):
    """A mark outside of the axes would widen it: once to 26,460 pixels. No words overlap."""
    ledger, steps = chain(jobs, died, stages)
    if faults is None:
        plot.run(ledger, steps)
    else:
        plot.recovery(ledger, [FaultRow("kill_broker", START + at, s) for at, s in faults])

    from matplotlib.text import Text

    width, height, size = png_size(pyplot)
    assert width <= 860
    assert height <= 600
    assert size <= 100_000
    labels = [each for each in words_of(pyplot.gcf()) if each.get_position()[0] > 0
              and getattr(each, "xycoords", "") == "axes fraction"]  # fmt: skip
    boxes = sorted((Text.get_window_extent(each) for each in labels), key=lambda box: box.y0)
    assert all(low.y1 <= high.y0 for low, high in pairwise(boxes))
    assert all(each.get_fontsize() * 100 / 72 >= 11 * 860 / 720 for each in words_of(pyplot.gcf()))


@pytest.mark.parametrize(
    ("seconds", "is_logarithmic"),
    [
        ([0.1] * 98 + [0.9, 0.9], False),
        ([0.1] * 98 + [1.1] * 2, True),
        ([0.0] * 10, False),
        ([0.0] * 98 + [5.0] * 2, False),
    ],
)
def test_the_axis_of_times_is_logarithmic_if_some_took_very_long(pyplot, seconds, is_logarithmic):
    """If the 99th percentile is more than ten times the median; a median of 0 has no logarithm."""
    plot.latencies(seconds)

    [axes] = pyplot.gcf().axes
    png_size(pyplot)
    assert (axes.get_xscale() == "log") == is_logarithmic
    assert sum(axes.patches[0].get_data().values) == len(seconds)


def test_what_waits_for_a_stage_is_shaded(pyplot):
    """The largest part that a word fits into says for which stage."""
    ledger, steps = chain(50, {}, ("first", "second"))

    plot.run(ledger, steps)

    flow, _ = pyplot.gcf().axes
    assert [each.get_label() for each in flow.lines] == ["sent", "first", "second"]
    assert len(flow.collections) == 2
    assert "waiting for first" in [each.get_text() for each in words_of(pyplot.gcf())]


@given(st.lists(st.floats(-50, 400), max_size=12))
def test_labels_are_spread_no_further_than_they_must(wanted):
    """They have their distance and their order; those with room stay where they are wanted."""
    found = spread(wanted, 16, 300)

    ranked = sorted(found)
    assert all(after - before >= 15.99 for before, after in pairwise(ranked))
    assert all(-0.01 <= each <= 300.01 for each in found)
    near = [abs(one - other) for n, one in enumerate(wanted) for other in wanted[:n]]
    if min(near, default=16) >= 16 and all(0 <= each <= 300 for each in wanted):
        assert found == pytest.approx(wanted)


def test_recovery_draws_triggered_faults_only(pyplot, ledger):
    """A line for each triggered fault, and a band for each one that took time to heal."""
    faults = [
        FaultRow("cut", START + 2, 1.5),
        FaultRow("kill_worker", START + 4, None),
        FaultRow("kill_broker", START + 5, 0.0),
        FaultRow("lose_ack", None, None),
    ]

    plot.recovery(ledger, faults)

    rate, backlog = pyplot.gcf().axes
    texts = [each.get_text() for each in words_of(pyplot.gcf())]
    assert "3 faults, 2 healed, 1 not healed, longest 1.5 s; 1 not triggered; 0 lost" in texts
    assert {"1", "2", "3", "messages done per second, 10 in all"} <= set(texts)
    assert {"1  cut, healed after 1.5 s", "2  kill_worker, not healed", "3  kill_broker, healed",
            "of 10 jobs; seconds since the first was sent"} <= set(texts)  # fmt: skip
    assert len(rate.patches) == 2  # the rate, and the band of the fault that took time to heal
    assert backlog.lines[0].get_ydata()[-1] == 0


@pytest.mark.parametrize(
    ("times", "open_jobs", "expected"),
    [
        ([0.16, 0.1, 0.02, 0.0], 0, "4 faults, all healed, longest 160 ms; 0 lost"),
        ([0.16], 0, "1 fault, healed, after 160 ms; 0 lost"),
        ([0.0], 0, "1 fault, healed; 0 lost"),
        ([None], 2, "1 fault, 0 healed, 1 not healed; 2 jobs under way"),
        ([], 0, "No fault was triggered; 0 lost"),
    ],
)
def test_the_heading_of_faults_is_the_finding(times, open_jobs, expected):
    faults = [FaultRow("cut", START, each) for each in times]

    assert plot_recovery.finding(faults, JobCounts(10, 10 - open_jobs, open_jobs, 0)) == expected


def test_latencies_says_so_when_no_job_was_done(pyplot):
    """If every job died, the picture has a text instead of bars."""
    _, axes = pyplot.subplots()

    plot.latencies([], axes)

    assert "no job was done" in [text.get_text() for text in axes.texts]


def test_names_are_no_formulas(pyplot):
    """A dollar in the name of a stage does not stop the picture."""
    ledger, steps = chain(3, {}, ("$x_$", "\\frac{$"))

    plot.run(ledger, steps)
    png_size(pyplot)

    assert "3 $x_$" in [each.get_text() for each in words_of(pyplot.gcf())]


def test_places_draws_each_place_the_most_northerly_one_and_the_centroid(pyplot):
    """It takes what the bricks of the tutorial return."""
    places = fetch_data(7, places=5)
    summary = process_data(places)

    plot.places(places, summary)

    [axes] = pyplot.gcf().axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[0] == "5 places"
    assert summary["most_northerly"][2] in labels[1]
    assert labels[2].startswith("centroid: ")


def test_map_has_coastlines_where_the_coasts_are(pyplot):
    """No line leaves the map or crosses it, and one passes through Gibraltar."""
    places = fetch_data(7, places=1)

    plot.places(places, process_data(places))

    _equator, *coasts = [line.get_xydata() for line in pyplot.gcf().axes[0].lines]
    assert len(coasts) > 100
    for line in coasts:
        assert abs(line[:, 0]).max() <= 180
        assert abs(line[:, 1]).max() <= 90
        assert max(abs(two[0] - one[0]) for one, two in pairwise(line)) < 45
    assert min(abs(line - (-5.4, 36.1)).max(axis=1).min() for line in coasts) < 0.6


def test_a_picture_has_a_ground_and_words_that_are_legible_on_it(pyplot, ledger):
    """The page may be light or dark; each word has a contrast of 4.5, see test_design_tokens."""
    plot.run(ledger, [Step("count", "numbers", ())])
    plot.recovery(ledger, [FaultRow("cut", START + 2, 1.5)])

    from matplotlib.colors import to_hex

    for number in pyplot.get_fignums():
        figure = pyplot.figure(number)
        assert to_hex(figure.get_facecolor(), keep_alpha=True) == f"{GROUND.light}ff"
        assert {axes.patch.get_alpha() for axes in figure.axes} == {0}
        colors = {to_hex(each.get_color()) for each in words_of(figure)}
        assert colors <= {TEXT.light, MUTED.light, DEAD.light}
