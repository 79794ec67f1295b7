"""The pictures: what they show of a run, of places, and of faults."""

from __future__ import annotations

import pytest

from mousetrap.display.design_tokens import MUTED_MARK
from mousetrap.fetch_data import fetch_data
from mousetrap.model.ledger import Ledger
from mousetrap.model.outcome import Outcome
from mousetrap.process_data import process_data
from mousetrap.runs import plot
from mousetrap.runs.plot import FaultRow

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


def test_run_draws_a_line_for_sent_jobs_and_one_for_each_stage(pyplot, ledger):
    """The line of a stage ends at its number of done messages; dead ones are marked."""
    plot.run(ledger)

    flow, times = pyplot.gcf().axes
    lines = {line.get_label(): line.get_ydata()[-1] for line in flow.lines}
    assert lines == {"sent": 10, "count": 9, "1 dead": 0}
    assert times.get_title() == "How long 9 jobs took"


def test_recovery_draws_triggered_faults_only(pyplot, ledger):
    """A line for each triggered fault, and a band for each one that took time to heal."""
    faults = [
        FaultRow("cut", START + 2, 1.5),
        FaultRow("kill_worker", START + 4, None),
        FaultRow("lose_ack", None, None),
    ]

    plot.recovery(ledger, faults)

    rate, backlog = pyplot.gcf().axes
    assert rate.get_title() == "10 messages; faults: 2"
    assert [text.get_text() for text in rate.texts] == ["1", "2"]
    legend = [text.get_text() for text in rate.get_legend().get_texts()]
    assert legend == ["1  cut, 1.5 s", "2  kill_worker, not healed"]
    assert len(rate.patches) == 2  # the rate, and the band of the healed fault
    assert backlog.lines[0].get_ydata()[-1] == 0


def test_latencies_says_so_when_no_job_was_done(pyplot):
    """If every job died, the picture has a text instead of a curve."""
    _, axes = pyplot.subplots()

    plot.latencies([], axes)

    assert [text.get_text() for text in axes.texts] == ["no job was done"]


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


def test_a_picture_has_no_ground_and_no_black_text(pyplot, ledger):
    """It is transparent, and all of its words have the colour that is legible in both themes."""
    plot.run(ledger)

    from matplotlib.colors import to_hex

    figure = pyplot.gcf()
    assert figure.patch.get_alpha() == 0
    for axes in figure.axes:
        words = [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.get_xticklabels()]
        words += axes.get_legend().get_texts()
        assert {to_hex(each.get_color()) for each in words} == {MUTED_MARK}


def test_a_death_is_inside_of_the_picture(pyplot, ledger):
    """Also if it came after the last message that was done."""
    plot.run(ledger)

    assert (
        pyplot.gcf().axes[0].get_xlim()[1] > 10
    )  # the last job died 10 s after the first was sent
