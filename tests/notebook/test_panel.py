"""A panel: its figures, its drawing, its updates in the cell, and its state in a saved notebook."""

from __future__ import annotations

import base64
import io
import os
import re
import threading

import nbformat
import pytest
from PIL import Image
from support.lengths import measure, show
from support.waiting import wait_for

import mousetrap
from mousetrap import Panel, Worker, declare, open_channel, panel, send
from mousetrap.model.ledger_progress import JobCounts
from mousetrap.notebook.freshness import LIVE_COLOR, AsOf

TIMEOUT = 20.0  # seconds


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
    assert view.jobs == JobCounts(total=3, done=2, dead=1)
    assert "2 results in shown" in repr(shown)
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
    with Worker("work", handle, settings, prefetch=16) as worker:
        shown = watch(worker)
        shown.measure()
        send("work", range(20), settings=settings)
        wait_for(lambda: worker.statistics().prefetched == 15)
        shown.measure()
        [view] = shown.poll()
        text = str(shown)
        gate.set()
        worker.wait_until(done=20)
        [after] = shown.poll()

    [busy], [idle] = view.stages, after.stages
    assert (busy.waiting, busy.in_progress, busy.done) == (4 + 15, 1, 0)
    assert busy.oldest in ("0 s", "1 s")
    assert busy.prefetch == 16
    assert text.startswith("● Working\n0 of 20 messages done (0 %) · 20 waiting or in work")
    assert "prefetch 16" in text
    assert (idle.in_progress, idle.done) == (0, 20)
    [ended] = shown.poll()
    assert (ended.state, ended.stages[0].rate > 0) == ("closed", True)
    assert str(shown).startswith("■ Stopped\n20 messages done · 0 dead · mean ")


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
    assert "but measure is connecting" in drawn.splitlines()[0]
    assert "measure is connecting: " in drawn
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
    verdict = output.data["text/plain"].splitlines()[0]
    assert verdict.startswith("■ Settled: all 50 jobs accounted for in ")
    assert re.search(r"measure .* 50 ", output.data["text/plain"])
    assert "data:image/svg+xml;base64," in output.data["text/html"]
    assert settings.password not in str(notebook)


LIVE_CELLS = """
import mousetrap, signal
from mousetrap import consume, panel, stage

def slow(word: str) -> None:
    mousetrap.runtime.clock.sleep(2.0)  # longer than the end of the kernel waits for it

def measure(word: str) -> int:
    return len(word)

handles = [consume("words", measure, concurrency=2), consume("slow", slow)]
measured = stage(reads="numbers")(measure)
"""
# as ipykernel does at some moment after Python began to end
CLOSE_MAIN_THREADS_SOCKET = """
import atexit
sockets = get_ipython().kernel.iopub_thread._event_pipes
atexit.register(lambda: sockets[threading.main_thread()].close())
"""
MARK = re.compile(r'data:image/png;base64,([^"]+)" width="14"')


def mark_of(cell):
    """Return the mark in a cell's last output as a picture; None if it has no mark of running."""
    found = MARK.search(cell.shown[-1]["text/html"])
    return Image.open(io.BytesIO(base64.b64decode(found[1]))) if found else None


@pytest.mark.parametrize("how", ["restart", "shutdown", "SIGTERM"])
@pytest.mark.timeout(120)
def test_panel_of_a_kernel_that_ends_says_so(kernel, settings, how):
    """Its last state is that after the consumers have stopped, without a mark of running."""
    declare("numbers", settings=settings)
    kernel.run("import mousetrap.runtime.clock" + LIVE_CELLS)
    shown = kernel.run("panel(handles)")
    of_run = kernel.run("run = mousetrap.run(measured).start()\nrun.panel = panel(run)")
    kernel.run("'another cell'")
    send("words", ["mouse", "trap"], settings=settings)
    kernel.run("handles[0].wait_until(done=2)")
    assert mark_of(shown).n_frames > 1
    send("slow", ["mouse"], settings=settings)
    kernel.run("handles[1].wait_until(received=1)")

    if how == "restart":
        kernel.run(CLOSE_MAIN_THREADS_SOCKET)
    if how == "SIGTERM":
        kernel.run("import os; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))")
        os.kill(kernel.pid, 15)
    else:
        kernel.request_end(restart=how == "restart")
    both = (shown, of_run)
    kernel.read_until(lambda: all("the kernel has ended" in each.result for each in both))
    kernel.read(0.5)  # nothing comes after it

    assert shown.result.startswith("■ Stopped\n")
    assert re.search(r" · as of [\d-]+ [\d:]+, the kernel has ended\n2 workers", shown.result)
    assert re.search(r"^measure .* 2 ", shown.result, re.MULTILINE)
    assert of_run.result.startswith("■ Ended: no job was sent\n")
    assert [mark_of(each) for each in both] == [None, None]


@pytest.mark.timeout(120)
def test_panel_of_a_kernel_that_is_killed_carries_its_age(kernel, settings):
    """Its last state has its date and time, and a mark that says running for some seconds only."""
    kernel.run("import mousetrap.runtime.clock" + LIVE_CELLS)
    shown = kernel.run("panel(handles)")
    kernel.kill()

    assert shown.result.startswith("● Waiting for messages\n")
    assert re.search(r"as of \d{4}-\d\d-\d\d \d\d:\d\d:\d\d$", shown.result, re.MULTILINE)
    mark = mark_of(shown)
    assert mark.info["Comment"].rpartition(" ")[0] in shown.result
    colors = []
    for n in range(mark.n_frames):
        mark.seek(n)
        colors.append(mark.convert("RGBA").getpixel((14, 14)))
    still, first, last = colors  # `still` is shown where nothing moves
    assert first == (*LIVE_COLOR, 255)
    assert still[3] == last[3] == 0  # a ring, which is empty
    assert mark.info["loop"] == 1  # the last frame stays


def test_picture_that_is_never_updated_has_no_mark_of_running(settings):
    """A run that a cell displays shows the time of the picture, and is not marked as live."""
    with mousetrap.run([measure], settings) as run:
        html = run._repr_mimebundle_()["text/html"]

    assert "<b>Ready</b>: no job was sent so far" in html
    assert "as of " in html
    assert not MARK.search(html)


def test_each_mark_is_another_picture():
    """Two updates in one second have two pictures, as a browser goes on with an equal one."""
    now = AsOf("2026-11-30 10:22:31", "")

    assert now.mark() != now.mark()
