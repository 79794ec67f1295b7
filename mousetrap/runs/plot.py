"""The pictures of the notebooks: how a run went, how long jobs took, what faults caused, a map.

Each function draws a new figure and returns None, so that a cell that ends with a call shows the
picture and nothing else; `latencies` and `places` draw on *axes* of the caller, too. The first
words of a picture say what it shows. matplotlib comes with the extra ``notebook``; it is imported
when something is drawn. Prototyped in ``notebooks/00_start_here.ipynb``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mousetrap.flows.flow import Step
from mousetrap.model.ledger import Ledger
from mousetrap.model.summary import percentiles
from mousetrap.runs import plot_progress, plot_times
from mousetrap.runs.plot_canvas import dress, new_figure, text_width
from mousetrap.runs.plot_places import Place, PlacesSummary, places
from mousetrap.runs.plot_recovery import FaultRow, HasFaultRows, recovery

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["FaultRow", "HasFaultRows", "Place", "PlacesSummary", "latencies", "places",
           "recovery", "run"]  # fmt: skip

PLOT_HEIGHT = 560  # pixels
LEFT_MARGIN = 64  # pixels beside the axes, for the numbers


def latencies(seconds: Sequence[float], axes: Axes | None = None) -> None:
    """Draw how many jobs took how long; mark the time within which half and nearly all were done.

    *seconds* has the latency of each job. If the 99th percentile is more than ten times the median,
    the axis is logarithmic.
    """
    if axes is None:
        _, [axes] = new_figure(250, [(60, 222)], LEFT_MARGIN, 24)
    else:
        dress(axes)
    plot_times.draw(seconds, axes)


def run(ledger: Ledger, steps: Sequence[Step] = ()) -> None:
    """Draw how many messages each stage had done at each moment, and how long the jobs took.

    With the *steps* of the flow, what waits for a stage is shaded. If a stage makes several
    messages of one, or none, there is also a line of the jobs that are done.
    """
    with ledger.figures() as figures:
        jobs, elapsed, seconds = figures.jobs(), figures.seconds(), figures.latencies()
        found = figures.moments()
        dead = found.dead()
        if len(dead) != jobs.dead:
            dead = figures.ends_of_jobs(is_dead=True)
        is_plain = any(len(moments) == jobs.done for _, moments in found.stages)
        done = found.sent[:0] if is_plain else figures.ends_of_jobs(is_dead=False)
    curves = plot_progress.curves_of(found, done, dead)
    right = max(text_width(each.label) for each in curves) + 30
    _, (flow, times) = new_figure(PLOT_HEIGHT, [(60, 290), (384, 530)], LEFT_MARGIN, right)
    heading = plot_progress.finding(jobs, elapsed, percentiles(seconds).get("p50"))
    plot_progress.draw(flow, heading, curves, plot_progress.waiting_of(found, steps, curves))
    plot_times.draw(seconds, times)
