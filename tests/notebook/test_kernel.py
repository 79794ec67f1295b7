"""Background consumers in a real kernel: cells run again, edited, interrupted; its shutdown."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import nbformat
import pytest
from support.kernel import EVERYTHING, HANDLER, consumers
from support.messages import send
from support.waiting import wait_for

from mousetrap.job_queue import declare, depth, drain
from mousetrap.worker.worker import Worker

pytestmark = pytest.mark.timeout(180)

# ---- the same cell again -------------------------------------------------------------------------


def test_consumer_cell_with_other_settings_each_time_is_one_consumer(kernel, settings):
    """A consuming cell run with other options each time starts a new worker, and leaves one."""
    for n in range(20):
        options = f"concurrency={1 + n % 2}"
        kernel.run(HANDLER.format(version=0) + f"handle = consume('work', work, {options})")
        assert consumers(settings) == 1
        send(settings, *range(5 * n, 5 * n + 5))
        kernel.run("handle.wait_until(done=5)")

    assert sorted(kernel.value("[n for _, n in seen]")) == list(range(100))
    assert kernel.value("len(mousetrap.notebook.registry.handles())") == 1


def test_consumer_cell_says_that_it_replaced_one(kernel):
    """A cell that replaces a consumer says so once, in its own output."""
    first = kernel.run(HANDLER.format(version=1) + "handle = consume('work', work)")
    second = kernel.run("handle = consume('work', work)")

    assert first.stdout == second.stderr == ""
    assert second.stdout == "mousetrap: replaced the consumer of 'work': work v1 goes on\n"


def test_handle_shows_itself_in_a_cell(kernel):
    """A handle as the last expression of a cell is displayed, as text at least."""
    cell = kernel.run(HANDLER.format(version=1) + "consume('work', work)")

    assert "text/plain" in cell.shown[-1]
    assert "work" in str(cell.shown[-1])


# ---- the function's cell -------------------------------------------------------------------------


def test_function_that_is_defined_again_takes_over(kernel, settings):
    """Running the cell that defines the function is enough: it takes over, and the cell says so."""
    kernel.run(HANDLER.format(version=1))
    kernel.run("handle = consume('work', work, writes='out')")
    send(settings, 1)
    kernel.run("handle.wait_until(done=1)")
    edited = kernel.run(HANDLER.format(version=2))
    again = kernel.run(HANDLER.format(version=2))
    send(settings, 2)
    kernel.run("handle.wait_until(done=2)")

    assert kernel.value("seen") == [(1, 1), (2, 2)]
    assert edited.stdout == "mousetrap: 'work': work v2 takes over from v1 with the next message\n"
    assert again.stdout == edited.stderr == ""  # the same code again
    assert ", v2 (" in kernel.run("repr(handle)").result
    assert kernel.value("handle.statistics().reconnects, handle.replaced") == (0, "")


def test_stage_that_is_defined_again_takes_over(kernel, settings):
    """A decorated function takes over in the same way."""
    stage = "@mousetrap.stage(reads='work', writes='out')\ndef scale(n: int) -> int: return {} * n"
    kernel.run(stage.format(10))
    kernel.run("handle = consume('work', scale)")
    kernel.run(stage.format(100))
    send(settings, 1)
    kernel.run("handle.wait_until(done=1)")

    assert [m.data for m in drain("out", settings=settings)] == [100]


@pytest.mark.parametrize("what", ["work = 5", "def work(one, two): ...", "async def work(n): ..."])
def test_function_that_cannot_take_over_leaves_the_one_that_runs(kernel, settings, what):
    """A definition that cannot handle messages is reported once, and the old function goes on."""
    kernel.run(HANDLER.format(version=1))
    kernel.run("handle = consume('work', work)")
    edited = kernel.run(what)
    later = kernel.run("1 + 1")
    send(settings, 1)
    kernel.run("handle.wait_until(done=1)")

    assert edited.stdout.startswith("mousetrap: 'work': v1 goes on, because ")
    assert later.stdout == edited.stderr == ""
    assert "stale: v1 goes on" in kernel.run("repr(handle)").result
    kernel.run(HANDLER.format(version=2))
    assert kernel.value("handle.stale") == ""


def test_function_reloaded_in_place_is_another_version(kernel, settings, tmp_path):
    """%autoreload replaces the function; an edited file alone makes the handle stale."""
    module = tmp_path / "my_handlers.py"
    module.write_text("def scale(n: int) -> int:\n    return 10 * n\n")
    kernel.run(f"%load_ext autoreload\n%autoreload 0\nsys.path.insert(0, {str(tmp_path)!r})")
    kernel.run("from my_handlers import scale\nhandle = consume('work', scale, writes='out')")
    module.write_text("def scale(n: int) -> int:\n    return 1000 * n\n")
    assert "its source in my_handlers.py has changed" in kernel.value("handle.stale")
    reloaded = kernel.run("%autoreload")
    reloaded = kernel.run("1")  # noqa: F841 -- the extension acts before a cell, the hook after it
    send(settings, 1)
    kernel.run("handle.wait_until(done=1)")

    assert kernel.value("handle.stale, handle.version.number") == ("", 2)
    assert [m.data for m in drain("out", settings=settings)] == [1000]


def test_notebook_is_named_to_others(start_kernel, settings):
    """Another process sees the notebook's name; in the kernel itself it is "this kernel"."""
    kernel = start_kernel(JPY_SESSION_NAME="/home/me/analysis.ipynb")
    kernel.run(HANDLER.format(version=1) + "handle = consume('work', work)")

    with Worker("work", print, settings) as worker:
        [line] = worker.attached().lines()[1:]
        shown = kernel.run("repr(handle.attached())").result
        warning = kernel.value("handle.attached().warning")
    assert line == f"analysis.ipynb (work) on {socket.gethostname()}, pid {kernel.pid}"
    assert "Attached" in shown
    assert warning.startswith("2 attached, 1 is not from this kernel")


# ---- interrupts ----------------------------------------------------------------------------------


def test_interrupt_of_a_blocking_worker_ends_the_cell(kernel, settings):
    """``stage.run()`` in a cell, interrupted twice, ends with its consumer; the kernel goes on."""
    declare("work", settings=settings)
    kernel.run("@mousetrap.stage(reads='work')\ndef work(n: int) -> None: ...")
    cell = kernel.start("work.run()")
    wait_for(lambda: consumers(settings) == 1)
    kernel.interrupt()
    kernel.interrupt()
    kernel.finish(cell, 5)

    assert cell.error == "KeyboardInterrupt"
    assert kernel.value("1 + 1") == 2
    wait_for(lambda: consumers(settings) == 0)


INTERRUPTED_STOP = """
from mousetrap.worker.worker import Worker
stop = Worker.stop
def interrupted(worker, timeout=10.0, **options):  # as if the next interrupt came here
    if threading.current_thread() is threading.main_thread():
        raise KeyboardInterrupt
    stop(worker, timeout, **options)
Worker.stop = interrupted
"""


def test_interrupt_before_the_cell_has_begun_to_stop_its_worker_leaves_no_consumer(
    kernel, settings
):
    """An interrupt during the stop of a worker still leaves no consumer."""
    declare("work", settings=settings)
    kernel.run("@mousetrap.stage(reads='work')\ndef work(n: int) -> None: ...")
    kernel.run(INTERRUPTED_STOP)
    cell = kernel.start("work.run()")
    wait_for(lambda: consumers(settings) == 1)
    kernel.interrupt()
    kernel.finish(cell, 5)
    assert cell.error == "KeyboardInterrupt"
    wait_for(lambda: consumers(settings) == 0)


# ---- the end of a kernel -------------------------------------------------------------------------


def test_shutdown_finishes_messages_in_progress(kernel, settings):
    """At shutdown the message in progress is finished, and the others return to the queue."""
    kernel.run(EVERYTHING)
    send(settings, 0.7, 0.7, 0.7)
    kernel.run("begun.wait(10)")
    kernel.shutdown()

    wait_for(lambda: consumers(settings) == 0)
    assert depth("out", settings).messages == 1
    assert depth("work", settings).messages == 2


# ---- an idle kernel, a computing kernel ----------------------------------------------------------

SECONDS = pytest.mark.parametrize(
    ("heartbeat", "seconds"),
    [
        (2.0, {"idle": 7, "compute": 7, "hold": 3}),
        pytest.param(
            20.0, {"idle": 300, "compute": 90, "hold": 60},
            marks=[pytest.mark.long, pytest.mark.timeout(700)],
        ),
    ],
)  # fmt: skip


@SECONDS
def test_kernel_that_idles_and_computes_stays_connected(start_kernel, settings, heartbeat, seconds):
    """An idle kernel, or one that computes in Python, keeps its connections."""
    kernel = start_kernel(settings.replace(heartbeat=heartbeat, queue_expiry=600.0))
    kernel.run(EVERYTHING)
    kernel.read(seconds["idle"])
    kernel.run(
        f"end = time.monotonic() + {seconds['compute']}\nwhile time.monotonic() < end: pass",
        timeout=seconds["compute"] + 60,
    )
    kernel.run("publisher.publish_many([Message(0.0)] * 20, 'work'); handle.wait_until(done=20)")
    kernel.run("publisher.publish(Message(0.0), 'other').wait(); other.wait_until(done=1)")

    assert kernel.value("[h.statistics().reconnects for h in (handle, other)]") == [0, 0]
    assert kernel.value("direct.statistics().reconnects, publisher.connection.reconnects") == (0, 0)
    assert kernel.value("channel.is_open, run.settle(5).lost") == (True, 0)


@SECONDS
def test_kernel_in_a_c_call_reconnects_at_most_once(start_kernel, settings, heartbeat, seconds):
    """A C call that holds the GIL stops heartbeats: at most one reconnect, and nothing is lost."""
    settings = settings.replace(heartbeat=heartbeat, queue_expiry=600.0)
    kernel = start_kernel(settings)
    kernel.run(EVERYTHING)
    send(settings, *[0.05] * 40)
    kernel.run("handle.wait_until(done=3)")
    cell = kernel.start(f"import ctypes; ctypes.PyDLL(None).sleep({seconds['hold']})")
    kernel.finish(cell, seconds["hold"] + 60)
    wait_for(lambda: depth("out", settings).messages >= 40, 60)
    kernel.run("while handle.statistics().in_progress: time.sleep(0.1)")

    each = "[c.reconnects for c in (handle.worker._consumer.connection, " \
        "handle.worker._publisher.connection, publisher.connection)]"  # fmt: skip
    assert max(kernel.value(each)) <= 1
    ids = {message.id for message in drain("out", settings=settings, idle=0.5)}
    assert len(ids) == 40


# ---- in every environment ------------------------------------------------------------------------

SCRIPT = """
import mousetrap
from mousetrap import Message, Publisher, consume, drain

def shout(word: str) -> str:
    print("heard", word)
    return word.upper()

handle = consume("words", shout, writes="loud")
handle = consume("words", shout, writes="loud")
with Publisher() as publisher:
    for word in ("mouse", "trap"):
        publisher.publish(Message(word), "words").wait()
now = handle.wait_until(done=2)
print(now.done, sorted(m.data for m in drain("loud")), [str(p) for p in [handle.output()]])
"""
EXPECTED = "2 ['MOUSE', 'TRAP'] ['heard mouse\\nheard trap\\n']\n"


def test_consume_is_the_same_in_a_terminal_and_in_a_notebook(start_kernel, settings, tmp_path):
    """In a script, in a kernel and under papermill the same lines give the same output."""
    script, kernel, papermill = (
        settings.replace(namespace=f"{settings.namespace}-{n}") for n in range(3)
    )
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=os.environ | script.to_environment(),
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    cell = start_kernel(kernel).run(SCRIPT)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SCRIPT)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, tmp_path / "words.ipynb")
    subprocess.run(
        [sys.executable, "-m", "papermill", tmp_path / "words.ipynb", tmp_path / "out.ipynb"],
        env=os.environ | papermill.to_environment(), capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    executed = nbformat.read(tmp_path / "out.ipynb", 4)
    outputs = executed.cells[0].outputs

    assert run.stdout == EXPECTED
    assert run.stderr.startswith("mousetrap: replaced the consumer of 'words': shout v1 goes on")
    # in a cell, what is written to stderr would look like an error
    assert cell.stdout == "".join(each.text for each in outputs) == run.stderr + EXPECTED
    assert cell.stderr == ""
    assert {each.name for each in outputs} == {"stdout"}
    # the kernel still runs, the others have ended
    assert [consumers(each, "words") for each in (script, kernel, papermill)] == [0, 1, 0]
