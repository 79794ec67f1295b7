"""The panel: a live display of what stages do, whose last state stays in the saved notebook.

It is a picture as SVG and a table below it, without a script. Prototyped in
``notebooks/08_watching.ipynb``.
"""

from __future__ import annotations

import dataclasses
import html
import weakref
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from mousetrap.amqp.queue_depth import QueueDepthReader
from mousetrap.display import design_tokens as tokens
from mousetrap.display import sparkline
from mousetrap.display.safe_text import NO_FORMULAS, SafeText, safe
from mousetrap.display.table import Table
from mousetrap.errors import MousetrapError
from mousetrap.model.summary import StageSummary
from mousetrap.notebook import registry
from mousetrap.notebook.freshness import AsOf
from mousetrap.notebook.handle import Handle, register_display
from mousetrap.notebook.live import ENDED, LiveDisplay, MimeBundle
from mousetrap.notebook.stats_source import (
    RunStatsSource,
    StageView,
    StatsSource,
    View,
    WorkerOrHandle,
    WorkersStatsSource,
    worker_of,
)
from mousetrap.runs.diagram import Activity, Diagram, format_rate
from mousetrap.runs.figures import register_view
from mousetrap.runs.run import Run, open_runs
from mousetrap.runtime import clock, threads
from mousetrap.runtime.environment import is_kernel
from mousetrap.settings import Settings
from mousetrap.worker.running import running
from mousetrap.worker.worker import Worker

MAX_SIZE = 60_000  # bytes of a panel, text and HTML together
MAX_SECTIONS = 4  # runs, or groups of workers, that are shown
MAX_STAGE_ROWS = 20  # stages in the table of each section
MAX_DRAWN = 12  # stages in the picture of each section
MAX_TEXT = 60  # characters of a name or a state
NORMAL_STATES = ("", "–", "new", "open", "replaced", "closed", "ended")  # shown without a colour
PANEL_COLUMNS = (
    "stage", "connection", "waiting", "oldest", "in progress", "per s", "done", "retried", "dead",
    "last minute",
)  # fmt: skip


class Panel:
    """Shows the work of a run, a worker, a handle, several of those, or all of this process.

    `show` displays it in the cell that runs now and updates it until all that it shows has ended;
    the last state stays as the output of the cell. In a terminal its `repr` has the same text.

    Threads: any.
    """

    def __init__(self, what: Any = None) -> None:
        self.what = None if what is None else _listed(what)
        self._lock = threads.Lock()
        self._sources: dict[object, StatsSource] = {}  # by run, or by settings of the workers
        self._depth_readers: dict[Settings, QueueDepthReader] = {}
        self._brokers: dict[Settings, str] = {}
        self._live = LiveDisplay(self)

    # ---- for people ------------------------------------------------------------------------------

    def show(self) -> Panel:
        """Show it in this cell and keep it up to date; outside a notebook nothing happens."""
        self._live.show()
        return self

    def stop(self) -> None:
        """Stop the updates; the present state stays."""
        self._live.stop()

    @property
    def is_live(self) -> bool:
        """Whether it is kept up to date."""
        return self._live.is_running

    def _ipython_display_(self) -> None:
        if is_kernel():
            self.show()  # once in a cell, however often the cell displays it
        else:
            print(self)  # noqa: T201 -- IPython in a terminal shows what is printed here

    def bundle(self) -> MimeBundle:
        """Return the present state by MIME type, as a picture that no update follows."""
        return self.render(self.poll(), end=None)

    def __repr__(self) -> str:
        return self.bundle()["text/plain"]

    # ---- for `LiveDisplay` -----------------------------------------------------------------------

    def render(self, views: Sequence[View], *, end: str | None) -> MimeBundle:
        """Return *views* as text and HTML, in at most `MAX_SIZE` bytes; *end* is that of `AsOf`."""
        at = AsOf(clock.local_date_time(), end)
        views = [_ended(view) for view in views] if end == ENDED else views
        for drawn, rows in (
            (MAX_DRAWN, MAX_STAGE_ROWS),
            (4, MAX_STAGE_ROWS),
            (0, MAX_STAGE_ROWS),
            (0, 5),
        ):
            bundle = _bundle(views, at, drawn, rows)
            if sum(len(text.encode()) for text in bundle.values()) <= MAX_SIZE:
                return bundle
        text = bundle["text/plain"][: MAX_SIZE // 10]  # a character may take five bytes in HTML
        return {"text/plain": text, "text/html": SafeText(text)._repr_html_()}

    def poll(self) -> Sequence[View]:
        """Return the present statistics of all that is shown."""
        with self._lock:
            now = clock.monotonic()
            return [
                _with_broker(each.view(now), self._brokers.get(each.settings, ""))
                for each in self._current_sources()
            ]

    def is_finished(self, views: Sequence[View]) -> bool:
        """Return whether all that is shown has ended."""
        return bool(views) and all(view.is_finished for view in views)

    def measure(self) -> None:
        """Measure the depths of the queues at their brokers."""
        with self._lock:
            sources = self._current_sources()
        for source in sources:
            settings = source.settings
            if settings not in self._brokers and (broker := _broker(settings)):
                self._brokers[settings] = broker
            reader = self._depth_readers.setdefault(settings, QueueDepthReader(settings, "panel"))
            with suppress(MousetrapError):  # the workers' own state says what is wrong
                depths = reader.read(source.queues())
                with self._lock:
                    source.record_depths(depths, clock.monotonic())
                if isinstance(source, WorkersStatsSource):
                    source.discover()

    def close(self) -> None:
        """Close the connections that `measure` has opened."""
        readers, self._depth_readers = self._depth_readers, {}
        for reader in readers.values():
            reader.close()

    def _current_sources(self) -> list[StatsSource]:
        """Return a source for each run, and one for all workers of one broker and namespace."""
        shown = _everything() if self.what is None else self.what
        sources: dict[object, StatsSource] = {}
        groups: dict[Settings, list[WorkerOrHandle]] = {}
        for each in shown:
            if isinstance(each, Run):
                sources[each] = self._sources.get(each) or RunStatsSource(each)
            else:
                groups.setdefault(worker_of(each).settings, []).append(each)
        for settings, members in groups.items():
            source = self._sources.get(settings) or WorkersStatsSource(members, settings)
            assert isinstance(source, WorkersStatsSource)
            source.members = members
            sources[settings] = source
        self._sources = sources
        return list(sources.values())


def panel(what: Any = None) -> Panel:
    """Show in this cell what *what* does: a run, a worker, a handle, or a list of those.

    Without *what* it shows everything that works in this process. The same panel can be shown in
    several cells; all of them are kept up to date.
    """
    key = None if what is None else tuple(id(each) for each in _listed(what))
    found = _panels.get(key)
    if found is None or found.is_finished(found.poll()):
        found = _panels[key] = Panel(what)
    return found.show()


_panels: weakref.WeakValueDictionary[object, Panel] = weakref.WeakValueDictionary()
register_display(lambda handle: panel(handle)._ipython_display_())


def _everything() -> list[Any]:
    """Return the runs of this process, its handles, and the workers that belong to neither."""
    found: list[Any] = list(open_runs())
    known = {each for run in found for each in run.workers}
    for handle in registry.handles():
        known.add(handle.worker)
        found.append(handle)
    return found + [each for each in running() if each not in known]


def _listed(what: Any) -> list[Any]:
    listed = list(what) if isinstance(what, Iterable) else [what]
    for each in listed:
        if not isinstance(each, (Run, Worker, Handle)):
            raise TypeError(
                f"a panel cannot show a {type(each).__name__}: give it a run, a worker, what "
                f"consume() returned, or a list of those"
            )
    return listed


def _broker(settings: Settings) -> str:
    from mousetrap.broker import probe  # takes a quarter of the time of `import mousetrap`

    version = probe.version(settings, timeout=1.0)
    if version is None:  # asked again at the next measurement
        return ""
    vhost = "" if settings.vhost == "/" else f", vhost {settings.vhost}"
    return f"{version} on {settings.host}:{settings.port}{vhost}"


def _with_broker(view: View, broker: str) -> View:
    """Return *view* with this description of its broker, in place of a mere address."""
    if not broker or not view.broker.startswith(("amqp://", "amqps://")):
        return view
    return dataclasses.replace(view, broker=broker)


def _ended(view: View) -> View:
    """Return *view* as that of a process which ends: what is open in it ends with it."""
    if view.is_finished:
        return view
    stages = (
        dataclasses.replace(each, state="ended" if each.state == "open" else each.state)
        for each in view.stages
    )
    return dataclasses.replace(view, state="ended", stages=tuple(stages))


# ---- drawing -------------------------------------------------------------------------------------


def _bundle(views: Sequence[View], at: AsOf, drawn: int, rows: int) -> MimeBundle:
    shown, more = views[:MAX_SECTIONS], len(views) - MAX_SECTIONS
    texts = [_text(view, at, rows) for view in shown]
    parts = [_html(view, at, drawn, rows) for view in shown]
    if more > 0:
        texts.append(f"... and {more:,} more")
        parts.append(f"<div>... and {more:,} more</div>")
    if not views:
        texts, parts = ["nothing runs in this process"], ["<div>nothing runs in this process</div>"]
    return {
        "text/plain": "\n\n".join(texts),
        "text/html": f'<div class="mousetrap {NO_FORMULAS}">{"".join(parts)}</div>',
    }


def _text(view: View, at: AsOf, rows: int) -> str:
    title = f"{view.title}: {view.state}, {at}, {view.broker}"
    table = Table(PANEL_COLUMNS, [_cells(each) for each in view.stages[:rows]], safe(title, 200))
    return "\n".join([repr(table), *_remarks(view, rows)])


def _html(view: View, at: AsOf, drawn: int, rows: int) -> str:
    color = tokens.DEAD_MARK if view.state == "failed" else tokens.MUTED_MARK
    mark = f'<span style="color:{color}">■</span>' if view.is_finished else at.mark()
    picture = _picture(view, drawn) if drawn else ""
    left, right = "text-align:left;white-space:nowrap", "text-align:right;white-space:nowrap"
    sides = [left, left, *[right] * 7, left]
    head = "".join(
        f'<th style="{side}">{name}</th>' for name, side in zip(PANEL_COLUMNS, sides, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f'<td style="{side}{_tint(name, cell)}">{html.escape(cell)}</td>'
            for name, side, cell in zip(PANEL_COLUMNS, sides, _cells(each), strict=True)
        )
        + "</tr>"
        for each in view.stages[:rows]
    )
    remarks = html.escape("\n".join(_remarks(view, rows)))
    if remarks:
        remarks = f'<pre style="font-family:monospace;margin:4px 0">{remarks}</pre>'
    return (
        f'<div style="margin:4px 0">{mark} '
        f"<b>{html.escape(safe(view.title, MAX_TEXT))}</b> "
        f"{html.escape(safe(view.state, MAX_TEXT))} · {at} · "
        f"{html.escape(safe(view.broker, 120))}</div>"
        f'{picture}<table style="margin:4px 0"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>{remarks}"
    )


def _picture(view: View, drawn: int) -> str:
    """Return the diagram as an image: no script in it runs, and sanitizers of HTML keep it."""
    stages = view.stages[:drawn]
    queues: dict[str, int | None] = {**view.queues}
    queues |= {each.step.reads: each.waiting for each in stages}
    diagram = Diagram(
        [each.step for each in stages],
        {each.step.name: _summary(each) for each in stages},
        queues,
        activity={
            each.step.name: Activity(
                each.rate, each.history, each.in_progress,
                "" if each.state in NORMAL_STATES else each.state,
            )
            for each in stages
        },
        oldest={e.step.reads: e.oldest for e in stages if e.oldest not in ("", "0 s")},
        end=view.queue_label,
    )  # fmt: skip
    return diagram.image()


def _cells(stage: StageView) -> tuple[str, ...]:
    def number(value: int | None) -> str:
        return "–" if value is None else f"{value:,}"

    waiting = number(stage.waiting)
    if stage.waiting_retry:
        waiting += f" + {stage.waiting_retry:,} for a retry"
    in_progress = number(stage.in_progress)
    if stage.prefetch and stage.in_progress is not None:
        in_progress += f" (prefetch {stage.prefetch:,})"
    if stage.in_work >= 1.0:
        in_progress += f", for {stage.in_work:,.0f} s"
    return (
        safe(stage.step.name, MAX_TEXT),
        safe(stage.state, MAX_TEXT) or "–",
        waiting,
        safe(stage.oldest, MAX_TEXT) or "–",
        in_progress,
        format_rate(stage.rate),
        number(stage.done),
        number(stage.retried),
        number(stage.dead),
        sparkline.bars(stage.history),
    )


def _tint(column: str, cell: str) -> str:
    bad = {"dead": tokens.DEAD_MARK, "retried": tokens.RETRIED_MARK}
    if column in bad and cell != "0":
        return f";color:{bad[column]};font-weight:bold"
    if column == "connection" and cell not in NORMAL_STATES:
        return f";color:{tokens.DEAD_MARK};font-weight:bold"
    return f";color:{tokens.ACCENT_MARK}" if column == PANEL_COLUMNS[-1] else ""


def _remarks(view: View, rows: int) -> list[str]:
    lines = [
        f"{each.step.name}: {each.problem}" for each in view.stages[:rows] if each.problem
    ] + list(view.remarks)
    more = len(view.stages) - rows
    lines = [safe(line, 300) for line in lines[:10]]
    return lines + ([f"... and {more:,} more stages"] if more > 0 else [])


def _summary(stage: StageView) -> StageSummary:
    return StageSummary(stage.done, stage.retried, stage.dead, {}, {})


register_view(lambda run: Panel(run).bundle()["text/html"])
