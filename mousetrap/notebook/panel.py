"""The panel: a live display of what stages do, whose last state stays in the saved notebook.

It is a sentence, a bar, a table and a foot, without a script: `panel_words` has what is said,
`panel_html` and `panel_text` draw it. Prototyped in ``notebooks/08_watching.ipynb``.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from mousetrap.amqp.queue_depth import QueueDepthReader
from mousetrap.display.safe_text import NO_FORMULAS, SafeText
from mousetrap.errors import MousetrapError
from mousetrap.notebook import registry
from mousetrap.notebook.freshness import AsOf
from mousetrap.notebook.handle import Handle, register_display
from mousetrap.notebook.live import ENDED, LiveDisplay, MimeBundle
from mousetrap.notebook.panel_html import section
from mousetrap.notebook.panel_text import text
from mousetrap.notebook.run_stats import RunStatsSource
from mousetrap.notebook.stats_source import StatsSource, View
from mousetrap.notebook.worker_stats import WorkerOrHandle, WorkersStatsSource, worker_of
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
        for rows, is_drawn in ((MAX_STAGE_ROWS, True), (MAX_STAGE_ROWS, False), (5, False)):
            bundle = _bundle(views, at, rows, is_drawn=is_drawn)
            if sum(len(each.encode()) for each in bundle.values()) <= MAX_SIZE:
                return bundle
        short = bundle["text/plain"][: MAX_SIZE // 10]  # a character may take five bytes in HTML
        return {"text/plain": short, "text/html": SafeText(short)._repr_html_()}

    def poll(self) -> Sequence[View]:
        """Return the present statistics of all that is shown."""
        with self._lock:
            now = clock.monotonic()
            return [each.view(now) for each in self._current_sources()]

    def is_finished(self, views: Sequence[View]) -> bool:
        """Return whether all that is shown has ended."""
        return bool(views) and all(view.is_finished for view in views)

    def measure(self) -> None:
        """Measure the depths of the queues at their brokers."""
        with self._lock:
            sources = self._current_sources()
        for source in sources:
            if not (queues := source.queues()):
                continue
            settings = source.settings
            reader = self._depth_readers.setdefault(settings, QueueDepthReader(settings, "panel"))
            with suppress(MousetrapError):  # the workers' own state says what is wrong
                depths = reader.read(queues)
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


def _ended(view: View) -> View:
    """Return *view* as that of a process which ends: what is open in it ends with it."""
    if view.is_finished:
        return view
    stages = (
        dataclasses.replace(each, state="ended" if each.state == "open" else each.state)
        for each in view.stages
    )
    return dataclasses.replace(view, state="ended", stages=tuple(stages), next=())


# ---- drawing -------------------------------------------------------------------------------------


def _bundle(views: Sequence[View], at: AsOf, rows: int, *, is_drawn: bool) -> MimeBundle:
    shown, more = views[:MAX_SECTIONS], len(views) - MAX_SECTIONS
    is_one_of_many = len(views) > 1
    texts = [text(view, at, rows) for view in shown]
    parts = [
        section(view, at, rows, is_drawn=is_drawn, is_one_of_many=is_one_of_many) for view in shown
    ]
    if more > 0:
        texts.append(f"... and {more:,} more")
        parts.append(f"<div>... and {more:,} more</div>")
    if not views:
        texts, parts = ["nothing runs in this process"], ["<div>nothing runs in this process</div>"]
    return {
        "text/plain": "\n\n".join(texts),
        "text/html": f'<div class="mousetrap {NO_FORMULAS}">{"".join(parts)}</div>',
    }


register_view(lambda run: Panel(run).bundle()["text/html"])
