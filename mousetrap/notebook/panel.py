"""A panel: what stages are doing, alive in the cell, and its last picture in the saved notebook.

A picture as SVG and a table below it, no script. Prototyped in ``notebooks/08_watching.ipynb``.
"""

from __future__ import annotations

import base64
import html
import re
import weakref
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from mousetrap.amqp.queue_depth import QueueDepthReader
from mousetrap.display import sparkline
from mousetrap.display.safe_text import NO_FORMULAS, SafeText, safe
from mousetrap.display.table import Table
from mousetrap.errors import MousetrapError
from mousetrap.model.summary import StageSummary
from mousetrap.notebook import registry
from mousetrap.notebook.handle import Handle
from mousetrap.notebook.live import Bundle, Live
from mousetrap.notebook.stats_source import (
    RunWatch,
    StageView,
    View,
    Watch,
    WorkersWatch,
    worker_of,
)
from mousetrap.runs.diagram import Activity, Diagram, rate
from mousetrap.runs.run import Run, open_runs, register_view
from mousetrap.runtime import clock, threads
from mousetrap.runtime.environment import is_kernel
from mousetrap.settings import Settings
from mousetrap.worker.worker import Worker, running

MAX_SIZE = 60_000  # bytes of all that is shown, whatever is watched
SECTIONS = 4  # runs, or groups of workers, shown at most
ROWS = 20  # stages shown at most in each
DRAWN = 12  # stages in a picture at most
NAME = 60  # characters
GREEN, ORANGE, RED, GREY = "#38a169", "#dd6b20", "#e53e3e", "#8795a8"  # on white and on black
WELL = ("", "–", "new", "open", "replaced", "closed")  # states that nobody need worry about
COLUMNS = ("stage", "connection", "waiting", "oldest", "in progress", "per s", "done", "retried",
           "dead", "last minute")  # fmt: skip


class Panel:
    """Shows what a run, a worker, a handle, several of those, or all of this process is doing.

    `show` puts it into the cell that runs now, where it lives until what it watches has ended; the
    last state stays as the cell's output. In a terminal its `repr` says the same.

    Threads: any.
    """

    def __init__(self, what: Any = None) -> None:
        self.what = None if what is None else _listed(what)
        self._lock = threads.Lock()
        self._watches: dict[object, Watch] = {}
        self._gauges: dict[Settings, QueueDepthReader] = {}
        self._brokers: dict[Settings, str] = {}
        self._live = Live(self)

    # ---- for people ------------------------------------------------------------------------------

    def show(self) -> Panel:
        """Show it in this cell and keep it up to date; nothing happens outside a notebook."""
        self._live.show()
        return self

    def stop(self) -> None:
        """Stop watching; the present state stays."""
        self._live.stop()

    @property
    def is_live(self) -> bool:
        """Somebody keeps it up to date."""
        return self._live.is_running

    def _ipython_display_(self) -> None:
        if is_kernel():
            self.show()  # once in a cell, however often it is named there
        else:
            print(self)  # noqa: T201 -- what IPython in a terminal is to show

    def bundle(self) -> Bundle:
        """Return what there is to see now, by MIME type."""
        return self.draw(self.look())

    def __repr__(self) -> str:
        return self.bundle()["text/plain"]

    # ---- for `Live` ------------------------------------------------------------------------------

    def draw(self, views: Sequence[View], *, is_watched: bool = True) -> Bundle:
        """Return *views* as text and HTML, in at most `MAX_SIZE` bytes."""
        at = f"as of {clock.local_time()}" + ", no longer watched" * (not is_watched)
        for drawn, rows in ((DRAWN, ROWS), (4, ROWS), (0, ROWS), (0, 5)):
            bundle = _bundle(views, at, drawn, rows)
            if sum(len(text.encode()) for text in bundle.values()) <= MAX_SIZE:
                return bundle
        text = bundle["text/plain"][: MAX_SIZE // 10]  # a character may take five bytes in HTML
        return {"text/plain": text, "text/html": SafeText(text)._repr_html_()}

    def look(self) -> Sequence[View]:
        """Look at everything that is watched."""
        with self._lock:
            now = clock.monotonic()
            return [
                _named(each.view(now), self._brokers.get(each.settings, ""))
                for each in self._watched()
            ]

    def is_over(self, views: Sequence[View]) -> bool:
        """Say whether all that is watched has ended."""
        return bool(views) and all(view.is_over for view in views)

    def measure(self) -> None:
        """Ask the brokers how full the queues are."""
        with self._lock:
            watches = self._watched()
        for watch in watches:
            settings = watch.settings
            if settings not in self._brokers and (broker := _broker(settings)):
                self._brokers[settings] = broker
            gauge = self._gauges.setdefault(settings, QueueDepthReader(settings, "panel"))
            with suppress(MousetrapError):  # its workers say what is the matter
                depths = gauge.read(watch.queues())
                with self._lock:
                    watch.measured(depths, clock.monotonic())
                if isinstance(watch, WorkersWatch):
                    watch.ask()

    def close(self) -> None:
        """Close the connections that `measure` opened."""
        gauges, self._gauges = self._gauges, {}
        for gauge in gauges.values():
            gauge.close()

    def _watched(self) -> list[Watch]:
        """A watch for each run, and one for all workers of one broker and namespace."""
        subjects = _everything() if self.what is None else self.what
        found: dict[object, Watch] = {}
        groups: dict[Settings, list[Worker | Handle]] = {}
        for each in subjects:
            if isinstance(each, Run):
                found[each] = self._watches.get(each) or RunWatch(each)
            else:
                groups.setdefault(worker_of(each).settings, []).append(each)
        for settings, members in groups.items():
            watch = self._watches.get(settings) or WorkersWatch(members, settings)
            assert isinstance(watch, WorkersWatch)
            watch.subjects = members
            found[settings] = watch
        self._watches = found
        return list(found.values())


def panel(what: Any = None) -> Panel:
    """Show what *what* is doing, alive, in this cell: a run, a worker, a handle, a list of those.

    Without *what* it is everything that works in this kernel. Ask again in another cell, and both
    are kept up to date.
    """
    key = None if what is None else tuple(id(each) for each in _listed(what))
    found = _panels.get(key)
    if found is None or found.is_over(found.look()):
        found = _panels[key] = Panel(what)
    return found.show()


_panels: weakref.WeakValueDictionary[object, Panel] = weakref.WeakValueDictionary()


def _everything() -> list[Any]:
    """The runs of this process, then its handles, then what works without one."""
    found: list[Any] = list(open_runs())
    known = {each for run in found for each in run.workers}
    for handle in registry.handles():
        known.add(handle.worker)
        found.append(handle)
    return found + [each for each in running() if each not in known]


def _listed(what: Any) -> list[Any]:
    many = list(what) if isinstance(what, Iterable) else [what]
    for each in many:
        if not isinstance(each, (Run, Worker, Handle)):
            raise TypeError(
                f"a panel cannot watch a {type(each).__name__}: give it a run, a worker, what "
                f"consume() returned, or a list of those"
            )
    return many


def _broker(settings: Settings) -> str:
    from mousetrap.broker import probe  # it takes a quarter of the time that mousetrap takes

    version = probe.version(settings, timeout=1.0)
    if version is None:  # ask again at the next measurement
        return ""
    vhost = "" if settings.vhost == "/" else f", vhost {settings.vhost}"
    return f"{version} on {settings.host}:{settings.port}{vhost}"


def _named(view: View, broker: str) -> View:
    """The view with what is known of the broker, unless the run itself knows more."""
    if not broker or not view.where.startswith(("amqp://", "amqps://")):
        return view
    return View(**{**vars(view), "where": broker})


# ---- drawing -------------------------------------------------------------------------------------


def _bundle(views: Sequence[View], at: str, drawn: int, rows: int) -> Bundle:
    shown, more = views[:SECTIONS], len(views) - SECTIONS
    texts = [_text(view, at, rows) for view in shown]
    parts = [_html(view, at, drawn, rows) for view in shown]
    if more > 0:
        texts.append(f"... and {more:,} more")
        parts.append(f"<div>... and {more:,} more</div>")
    if not views:
        texts, parts = ["nothing is at work here"], ["<div>nothing is at work here</div>"]
    return {
        "text/plain": "\n\n".join(texts),
        "text/html": f'<div class="mousetrap {NO_FORMULAS}">{"".join(parts)}</div>',
    }


def _text(view: View, at: str, rows: int) -> str:
    title = f"{view.title}: {view.state}, {at}, {view.where}"
    table = Table(COLUMNS, [_cells(each) for each in view.stages[:rows]], safe(title, 200))
    return "\n".join([repr(table), *_remarks(view, rows)])


def _html(view: View, at: str, drawn: int, rows: int) -> str:
    color = GREEN if not view.is_over else RED if view.state == "failed" else GREY
    mark = "■" if view.is_over else "●"
    picture = _picture(view, drawn) if drawn else ""
    left, right = "text-align:left;white-space:nowrap", "text-align:right;white-space:nowrap"
    sides = [left, left, *[right] * 7, left]
    head = "".join(
        f'<th style="{side}">{name}</th>' for name, side in zip(COLUMNS, sides, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f'<td style="{side}{_tint(name, cell)}">{html.escape(cell)}</td>'
            for name, side, cell in zip(COLUMNS, sides, _cells(each), strict=True)
        )
        + "</tr>"
        for each in view.stages[:rows]
    )
    remarks = html.escape("\n".join(_remarks(view, rows)))
    if remarks:
        remarks = f'<pre style="font-family:monospace;margin:4px 0">{remarks}</pre>'
    return (
        f'<div style="margin:4px 0"><span style="color:{color}">{mark}</span> '
        f"<b>{html.escape(safe(view.title, NAME))}</b> "
        f"{html.escape(safe(view.state, NAME))} · {at} · {html.escape(safe(view.where, 120))}</div>"
        f'{picture}<table style="margin:4px 0"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>{remarks}"
    )


def _picture(view: View, drawn: int) -> str:
    """The diagram as an image: nothing in it can act, and it survives whoever cleans HTML."""
    stages = view.stages[:drawn]
    queues: dict[str, int | None] = {**view.queues}
    queues |= {each.step.reads: each.waiting for each in stages}
    diagram = Diagram(
        [each.step for each in stages],
        {each.step.name: _record(each) for each in stages},
        queues,
        activity={
            each.step.name: Activity(
                each.rate, each.minute, each.in_progress,
                "" if each.state in WELL else each.state,
            )
            for each in stages
        },
        oldest={e.step.reads: e.oldest for e in stages if e.oldest not in ("", "0 s")},
        end=view.end,
    )  # fmt: skip
    svg = diagram.svg()
    data = base64.b64encode(svg.encode()).decode()
    words = html.escape(repr(diagram)[:500].replace("\n", "; "))
    size = " ".join(re.findall(r'(?:width|height)="[\d.]+"', svg)[:2])  # nothing jumps on loading
    return (
        f'<img alt="{words}" src="data:image/svg+xml;base64,{data}" {size} decoding="sync" '
        f'style="max-width:100%;height:auto;margin:4px 0">'
    )


def _cells(stage: StageView) -> tuple[str, ...]:
    def number(value: int | None) -> str:
        return "–" if value is None else f"{value:,}"

    waiting = number(stage.waiting)
    if stage.later:
        waiting += f" + {stage.later:,} for a retry"
    return (
        safe(stage.step.name, NAME),
        safe(stage.state, NAME) or "–",
        waiting,
        safe(stage.oldest, NAME) or "–",
        number(stage.in_progress),
        rate(stage.rate),
        number(stage.done),
        number(stage.retried),
        number(stage.dead),
        sparkline.bars(stage.minute),
    )


def _tint(column: str, cell: str) -> str:
    bad = {"dead": RED, "retried": ORANGE}
    if column in bad and cell != "0":
        return f";color:{bad[column]};font-weight:bold"
    if column == "connection" and cell not in WELL:
        return f";color:{RED};font-weight:bold"
    return ";color:#4299e1" if column == COLUMNS[-1] else ""


def _remarks(view: View, rows: int) -> list[str]:
    lines = [
        f"{each.step.name}: {each.trouble}" for each in view.stages[:rows] if each.trouble
    ] + list(view.remarks)
    more = len(view.stages) - rows
    lines = [safe(line, 300) for line in lines[:10]]
    return lines + ([f"... and {more:,} more stages"] if more > 0 else [])


def _record(stage: StageView) -> StageSummary:
    return StageSummary(stage.done, stage.retried, stage.dead, {}, {})


register_view(lambda run: Panel(run).bundle()["text/html"])
