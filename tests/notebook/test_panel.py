"""A panel: its figures, its drawing, its updates in the cell, and its state in a saved notebook."""

from __future__ import annotations

import base64
import os
import re
import threading
import time
from types import SimpleNamespace
from xml.etree import ElementTree

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.waiting import wait_for

import mousetrap
from mousetrap import Panel, Worker, declare, open_channel, panel, send, stage
from mousetrap.flows.flow import Step
from mousetrap.notebook import live as live_module
from mousetrap.notebook.live import MAX_UPDATES_PER_SECOND, LiveDisplay
from mousetrap.notebook.rate import HISTORY, MAX_BARS, ArrivalHistory, RateMeter
from mousetrap.notebook.stats_source import WorkersStatsSource
from mousetrap.runs.diagram import Activity, Diagram

TIMEOUT = 20.0  # seconds


@stage(reads="words", writes="lengths", retry_delays=(0.05,))
def measure(word: str) -> int:
    if not word:
        raise ValueError("no word")
    return len(word)


@stage(reads="lengths", writes="shown")
def show(length: int) -> str:
    return str(length)


# ---- counts become rates and ages ----------------------------------------------------------------


def test_rate_is_how_fast_a_count_grows():
    """The rate is over five seconds, the average over the time in which the count grew."""
    meter = RateMeter()
    for n in range(101):  # ten seconds at 20 a second, measured every tenth of a second
        meter.add(2 * n, 1000 + n / 10)
    for n in range(1, 30):  # then nothing more
        meter.add(200, 1010 + n / 10)

    assert meter.average == pytest.approx(20, rel=0.02)
    assert meter.rate == pytest.approx(42 / 5, rel=0.1)


@given(st.lists(st.tuples(st.floats(0.05, 9), st.integers(0, 500)), min_size=1, max_size=60))
def test_history_shows_all_that_came_in_the_last_minute(measurements):
    """However far apart the measurements are, the history has all growth and is never too long."""
    meter, now, count = RateMeter(), 500.0, 7
    meter.add(count, now)
    for pause, grown in measurements:
        now, count = now + pause, count + grown
        meter.add(count, now)

    minute = meter.history(is_finished=True)
    assert len(minute) <= MAX_BARS
    assert all(each >= 0 for each in minute)
    if now < 500 + HISTORY - 1:
        assert sum(minute) == pytest.approx(count - 7, abs=0.1 * len(minute))


def test_history_of_a_constant_count_is_empty():
    """A count that does not grow has no history, so its display needs no update."""
    meter = RateMeter()
    for n in range(400):
        meter.add(7, 100 + n / 4)
        assert (meter.rate, meter.history(is_finished=False)) == (0.0, ())
    meter.add(8, 201)

    assert len(meter.history(is_finished=True)) <= 7


def test_history_of_steady_growth_is_even():
    """Steady growth gives an even history, though measurements and buckets are not in step."""
    meter = RateMeter()
    for n in range(40):
        meter.add(30 * n, 2000 + 0.3 * n)

    minute = meter.history(is_finished=False)[1:]
    assert max(minute) - min(minute) <= 0.1 * max(minute)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=50),
)
def test_arrivals_give_the_age_of_the_oldest_message(steps):
    """From counts alone the age is right to a second, for a queue that keeps its order."""
    arrivals, queue, settled = ArrivalHistory(), [], 0
    for now, (come, gone) in enumerate(steps):
        queue += [now] * come
        settled += len(queue[:gone])
        del queue[:gone]
        arrivals.add(settled, len(queue), float(now))

        expected = "" if not queue else f"{now - queue[0]:.0f} s"
        assert arrivals.oldest(settled, float(now)).removeprefix("> ") == expected


def test_arrivals_say_at_least_when_they_came_late():
    """A message that was there at the first measurement may be older."""
    arrivals = ArrivalHistory()
    arrivals.add(10, 3, 100.0)

    assert arrivals.oldest(10, 107.0) == "> 7 s"
    assert arrivals.oldest(13, 107.0) == ""


def test_arrivals_forget_what_was_counted_twice():
    """A message that moved on between two counts was in both; the next measurement corrects it."""
    arrivals = ArrivalHistory()
    for now, there in ((0.0, 5), (1.0, 0), (2.0, 0), (3.0, 1)):
        arrivals.add(0 if now == 0 else 4, there, now)

    assert arrivals.oldest(4, 5.0) == "2 s"


# ---- what is shown -------------------------------------------------------------------------------


@pytest.fixture
def watch():
    """Make panels, and close the connections by which they measure."""
    made = []

    def make(what) -> Panel:
        made.append(Panel(what))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_panel_of_a_run_knows_what_its_ledger_knows(settings, watch):
    """A run's panel has depths, retries, dead letters and results, and in the end its state."""
    with mousetrap.run([measure, show], settings) as run:
        shown = watch(run)
        run.send_many(["mouse", "", "trap"])
        run.settle(timeout=TIMEOUT)
        shown.measure()
        alive = shown.poll()[0]
    [view] = shown.poll()

    assert (alive.state, view.state, view.is_finished) == ("open", "closed", True)
    assert view.broker.startswith(("RabbitMQ ", "embedded, in memory: "))
    first, second = view.stages
    assert (first.done, first.retried, first.dead, first.waiting) == (2, 1, 1, 0)
    assert (second.done, second.oldest) == (2, "")
    assert view.queues == {"shown": 2}
    assert "run " + run.namespace in repr(shown)
    assert settings.password not in repr(shown)


def test_panel_of_a_run_in_processes_knows_it_as_well(settings, watch):
    """Without workers in this process, ledger and broker have the figures."""
    with mousetrap.run([measure], settings, workers="none") as run:
        shown = watch(run)
        run.send_many(["mouse", "trap"])
        wait_for(lambda: run.summary().confirmed == 2)
        shown.measure()
        [view] = shown.poll()

    [only] = view.stages
    assert (only.waiting, only.in_progress, only.state) == (2, 0, "")
    assert only.oldest in ("0 s", "1 s")


def test_panel_of_workers_counts_what_waits_and_since_when(settings, watch):
    """Waiting counts the queue and what is prefetched; the age of the oldest comes from counts."""
    gate = threading.Event()

    def handle(_: int) -> None:
        gate.wait(TIMEOUT)

    declare("work", settings=settings)
    with Worker("work", handle, settings) as worker:
        shown = watch(worker)
        shown.measure()
        send("work", range(20), settings=settings)
        wait_for(lambda: worker.statistics().prefetched == 15)
        shown.measure()
        [view] = shown.poll()
        gate.set()
        worker.wait_until(done=20)
        [after] = shown.poll()

    [busy], [idle] = view.stages, after.stages
    assert (busy.waiting, busy.in_progress, busy.done) == (4 + 15, 1, 0)
    assert busy.oldest in ("0 s", "1 s")
    assert (idle.in_progress, idle.done) == (0, 20)
    [ended] = shown.poll()
    assert (ended.state, ended.stages[0].rate > 0) == ("closed", True)


def test_panel_takes_workers_of_one_function_together(settings):
    """Two workers of one function on one queue are one stage; another queue is another stage."""
    declare("other", settings=settings)
    other = Worker("other", measure.handler, settings)
    watch = WorkersStatsSource(
        [measure.worker(settings), measure.worker(settings), other], settings
    )

    steps = [each.step for each in watch.view(1.0).stages]

    assert steps == [Step("measure", "words", "lengths"), Step("measure of other", "other")]


def test_panel_says_when_a_connection_is_lost(settings, proxy):
    """The panel has the state and the problem, and later the number of reconnects."""
    declare("words", settings=settings)
    with measure.start(proxy.settings) as worker:
        shown = Panel(worker)
        proxy.refuse()
        proxy.cut()
        cut = wait_for(lambda: worker.statistics().state == "connecting" and shown.poll()[0])
        drawn = repr(shown)
        proxy.accept()
        wait_for(lambda: worker.statistics().state == "open")
        back = repr(shown)

    assert not cut.is_finished
    assert cut.stages[0].problem
    assert "connecting" in drawn
    assert "measure reconnected" in back


def test_panel_of_everything_shows_runs_and_workers_once(settings):
    """Without an argument it finds the runs and workers of this process, each once."""
    declare(measure.queue, settings=settings)
    with mousetrap.run([show], settings) as run, measure.start(settings):
        views = Panel().poll()
        titles = [view.title for view in views]

    assert titles.count(f"run {run.namespace}") == 1
    assert titles.count(f"1 worker in namespace {settings.namespace}") == 1
    assert not any(run.namespace in view.title for view in Panel().poll())


def test_panel_is_one_for_the_same_thing(settings):
    """The same argument gives the same panel."""
    worker = measure.worker(settings)

    first = panel(worker)

    assert panel(worker) is first
    assert panel([worker]) is first


def test_panel_refuses_what_it_cannot_show():
    """Another type raises an error that names the possible ones."""
    with pytest.raises(TypeError, match="cannot show a int: give it a run, a worker"):
        panel(7)


def test_panel_of_a_handle_has_what_the_handle_has(settings, watch):
    """A handle's panel has version, output and failure, and ends when the handle is replaced."""

    def handle(word: str) -> None:
        print("about <b>", word)
        if word == "mouse":
            raise ValueError("no <i>luck</i>")

    declare("work", settings=settings)
    with mousetrap.consume("work", handle, settings, retry_delays=()) as first:
        send("work", ["mouse", "trap"], settings=settings)
        first.wait_until(dead=1, done=1)
        shown = watch(first)
        shown.measure()
        html = shown.bundle()["text/html"]
        with mousetrap.consume("work", handle, settings, retry_delays=()):
            replaced = shown.poll()

    assert "work → handle: v1 (" in html
    assert "printed: about &lt;b&gt; trap" in html
    assert "  about &lt;b&gt; mouse" in html
    assert "last failure: ValueError: no &lt;i&gt;luck&lt;/i&gt;" in html
    assert [view.state for view in replaced] == ["replaced"]
    assert shown.is_finished(replaced)


def test_panel_of_a_handle_says_who_else_consumes(settings, watch):
    """The thread of the panel asks which other processes consume."""
    declare("work", settings=settings)
    with mousetrap.consume("work", print, settings) as handle, open_channel(settings) as channel:
        channel.basic_consume(settings.topology.wire_name("work"), print)
        shown = watch(handle)
        shown.measure()
        drawn = repr(shown)

    assert "2 attached, 1 is not from this process: you will see about half" in drawn


# ---- how it looks --------------------------------------------------------------------------------


def test_panel_draws_a_picture_and_a_table(settings):
    """The SVG is an image with a size, and the table has the same figures."""
    html = Panel(mousetrap.run([measure, show], settings)).bundle()["text/html"]

    [(alt, data, width, height)] = re.findall(
        r'<img alt="(.*?)" src="data:image/svg\+xml;base64,(.*?)" width="(\d+)" height="(\d+)"',
        html,
    )
    picture = ElementTree.fromstring(base64.b64decode(data))
    assert (picture.get("width"), picture.get("height")) == (width, height)
    assert "words (0) → measure → lengths (0)" in alt
    assert html.count("<tr>") == 3
    assert "script" not in html.lower()


def test_live_diagram_marks_what_is_in_trouble():
    """A stage with a problem shows its state in place of its rate."""
    svg = Diagram([Step("measure", "words")], {}, {"words": None},
                  activity={"measure": Activity(0.0, (), 1, "connecting")},
                  oldest={"words": "12 s"}).svg()  # fmt: skip

    for text in ("– waiting", "oldest 12 s", ">connecting<"):
        assert text in svg
    assert ">0/s" not in svg


# ---- its updates ---------------------------------------------------------------------------------


class Counter:
    """Content that is a number, finished when it is negative."""

    def __init__(self) -> None:
        self.number = 0
        self.measured = 0
        self.is_closed = False

    def poll(self) -> int:
        return self.number

    def render(self, number, *, is_live):
        return {"text/plain": f"{number}{'' if is_live else ' not live'}"}

    def is_finished(self, number) -> bool:
        return number < 0

    def measure(self) -> None:
        self.measured += 1

    def close(self) -> None:
        self.is_closed = True


class Shell:
    """The part of an IPython shell that a display needs."""

    def __init__(self) -> None:
        self.execution_count = 1
        self.published = []  # when, is it an update, text, id
        self.hooks = []
        self.display_pub = SimpleNamespace(publish=self._publish)
        self.events = SimpleNamespace(
            register=lambda _, hook: self.hooks.append(hook),
            unregister=lambda _, hook: self.hooks.remove(hook),
            callbacks={"post_run_cell": self.hooks},
        )

    def _publish(self, *, data, transient, update, **_):
        record = (time.monotonic(), update, data["text/plain"], transient["display_id"])
        self.published.append(record)

    def texts(self):
        return [text for _, _, text, _ in self.published]

    def end_cell(self):
        for hook in list(self.hooks):
            hook(None)
        self.execution_count += 1


@pytest.fixture
def shell(monkeypatch):
    shell = Shell()
    monkeypatch.setattr(live_module, "ipython_shell", lambda: shell)
    monkeypatch.setattr(live_module, "is_kernel", lambda: True)
    return shell


@pytest.fixture
def counter():
    return Counter()


@pytest.fixture
def live(shell, counter):
    live = LiveDisplay(counter)
    yield live
    live.stop()


def test_live_updates_the_display_that_it_made(shell, counter, live):
    """After the first display there are only updates with its id."""
    assert live.show()
    shell.end_cell()
    counter.number = 1
    wait_for(lambda: "1" in shell.texts())

    kinds = [update for _, update, _, _ in shell.published]
    assert kinds == [False] + [True] * (len(kinds) - 1)
    assert len({id for *_, id in shell.published}) == 1


def test_live_shows_itself_once_in_a_cell(shell, counter, live):
    """Called twice in a cell it is displayed once, and again in the next cell."""
    assert [live.show(), live.show()] == [True, False]
    shell.end_cell()
    assert live.show()
    assert [update for _, update, _, _ in shell.published] == [False, False]


def test_live_sends_at_most_four_updates_a_second(shell, counter, live):
    """However fast the content changes and cells end, no second has more updates."""
    live.show()
    started = time.monotonic()
    while time.monotonic() < started + 2.5:
        counter.number += 1
        shell.end_cell()
        threading.Event().wait(0.001)
    counter.number = -1
    wait_for(lambda: "-1" in shell.texts())

    times = [at for at, *_ in shell.published]
    assert len(times) >= 2.5 * 2  # and it does not stop
    for n in range(len(times) - MAX_UPDATES_PER_SECOND):
        assert times[n + MAX_UPDATES_PER_SECOND] - times[n] >= 1.0


def test_live_sends_nothing_when_nothing_has_changed(shell, counter, live):
    """Polls of unchanged content send nothing."""
    live.show()
    before = counter.measured
    wait_for(lambda: counter.measured >= before + 2)
    shell.end_cell()

    assert len(shell.published) == 1


def test_live_is_up_to_date_at_the_end_of_the_cell(shell, counter, live, monkeypatch):
    """The end of a cell updates the display, because papermill reads nothing between two cells."""
    monkeypatch.setattr(live_module, "REFRESH_INTERVAL", 60.0)
    live.show()
    wait_for(lambda: counter.measured)
    counter.number = 5
    shell.end_cell()
    assert shell.texts()[-1] == "5"
    counter.number = -1
    shell.end_cell()

    assert shell.texts()[-1] == "-1"


def test_live_ends_by_itself_when_all_is_over(shell, counter, live):
    """When the content is finished, its thread and hook end; the last state stays."""
    live.show()
    assert live.is_running
    counter.number = -1
    wait_for(lambda: not live.is_running)

    assert shell.texts()[-1] == "-1"
    assert (shell.hooks, counter.is_closed) == ([], True)


def test_live_ends_when_it_is_stopped_or_nothing_happens_for_an_hour(
    shell, counter, live, monkeypatch
):
    """The last update says that it stopped; `show` starts it again."""
    live.show()
    live.stop()
    assert (live.is_running, shell.texts()[-1]) == (False, "0 not live")

    monkeypatch.setattr(live_module, "MAX_IDLE", 0.0)
    shell.end_cell()
    live.show()
    wait_for(lambda: not live.is_running)
    assert shell.texts()[-2:] == ["0", "0 not live"]


def test_panel_outside_a_notebook_is_text(settings, capsys):
    """In a terminal no thread starts, and IPython prints the text."""
    shown = panel(measure.worker(settings))

    shown._ipython_display_()

    assert not shown.is_live
    assert "measure" in capsys.readouterr().out


# ---- in a real kernel ----------------------------------------------------------------------------

CELLS = [
    "import mousetrap\n"
    "from mousetrap import stage\n\n"
    "@stage(reads='words', writes='lengths')\n"
    "def measure(word: str) -> int:\n"
    "    return len(word)\n\n"
    "run = mousetrap.run(measure, mousetrap.Settings.from_environment()).start()",
    "mousetrap.panel(run)",
    "'a cell that says something of its own'",
    "receipts = run.send_many(['mouse'] * 50)\nrecord = run.settle(timeout=20)",
    "run.stop()",
    "'the last cell'",
]


def test_panel_in_a_kernel_stays_in_its_cell_and_is_saved_with_its_last_state(settings):
    """Executed cell by cell, as by papermill, its cell has one output: the last state."""
    nbclient = pytest.importorskip("nbclient")
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells)

    client = nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3")
    client.execute(env=os.environ | settings.to_environment())

    counts = [len(cell.outputs) for cell in notebook.cells]
    assert counts == [0, 1, 1, 0, 0, 1]
    [output] = notebook.cells[1].outputs
    assert output.output_type == "display_data"
    assert "closed" in output.data["text/plain"]
    assert re.search(r"measure +closed .* 50 ", output.data["text/plain"])
    assert "data:image/svg+xml;base64," in output.data["text/html"]
    assert settings.password not in str(notebook)
