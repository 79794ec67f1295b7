"""Background consumers: a second call replaces the first, and reports it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
from support.interrupts import interrupted
from support.messages import send
from support.processes import other_process
from support.waiting import wait_for

import mousetrap
from mousetrap import consume, stage
from mousetrap.errors import AccessRefused, SettingsError
from mousetrap.job_queue import declare, depth, drain
from mousetrap.notebook import registry


def double(n: int) -> int:
    return 2 * n


def triple(n: int) -> int:
    return 3 * n


async def halve(n: int) -> float:
    return n / 2


def consumers(settings, queue="work"):
    return depth(queue, settings).consumers


def test_consume_works_in_the_background(settings):
    """A function and a queue give a handle that can be waited for."""
    handle = consume("work", double, settings, writes="out")
    send(settings, 1, 2, 3)
    now = handle.wait_until(done=3)

    assert (now.done, now.state) == (3, "open")
    assert sorted(m.data for m in drain("out", settings=settings)) == [2, 4, 6]
    assert registry.handles() == [handle]
    assert handle.is_running


def test_consume_takes_a_stage_with_all_that_it_knows(settings):
    """A stage brings its output queue and its concurrency."""

    @stage(reads="work", writes="out", concurrency=3)
    def quadruple(n: int) -> int:
        return 4 * n

    handle = consume("work", quadruple, settings)
    send(settings, 1)
    handle.wait_until(done=1)

    assert handle.worker.concurrency == 3
    assert [m.data for m in drain("out", settings=settings)] == [4]


def test_consume_again_is_one_consumer_on_the_same_connection(settings, capsys):
    """The same call again reconnects nothing and doubles nothing; the counts start at zero."""
    first = consume("work", double, settings)
    send(settings, 1)
    first.wait_until(done=1)
    second = consume("work", double, settings)

    assert consumers(settings) == 1
    assert second.worker is first.worker
    assert second.statistics().done == 0
    assert (first.is_running, second.is_running) == (False, True)
    assert "replaced the consumer of 'work': double v1 goes on" in capsys.readouterr().err
    send(settings, 2)
    second.wait_until(done=1)


def test_consume_again_with_another_function_swaps_between_messages(settings, capsys):
    """The message in progress ends with the old function, the next one is the new function's."""
    begun, gate = threading.Event(), threading.Event()

    def scale(n: int) -> int:
        begun.set()
        gate.wait(10)
        return 10 * n

    first = consume("work", scale, settings, writes="out")
    send(settings, 1, 2, 3)
    assert begun.wait(10)

    def scale(n: int) -> int:
        return 100 * n

    second = consume("work", scale, settings, writes="out")
    gate.set()
    second.wait_until(done=3)

    assert [m.data for m in drain("out", settings=settings)] == [10, 200, 300]
    assert second.worker is first.worker
    assert second.statistics().reconnects == 0
    assert (first.version.number, second.version.number) == (1, 2)
    assert "scale v2 takes over from v1 with the next message" in capsys.readouterr().err


def test_handle_that_was_replaced_keeps_its_name_and_its_figures(settings):
    """What the new function does is shown by the new handle only."""

    def fails(n: int) -> None:
        print("old")
        raise ValueError(n)

    def fails_later(n: int) -> None:
        print("new")
        raise KeyError(n)

    first = consume("work", fails, settings, retry_delays=())
    send(settings, 1)
    first.wait_until(dead=1)
    second = consume("work", fails_later, settings, retry_delays=())
    assert second.worker is first.worker
    send(settings, 2, 3)
    second.wait_until(dead=2)

    assert (first.statistics().dead, second.statistics().dead) == (1, 2)
    assert [type(each.error) for each in first.failures] == [ValueError]
    assert str(first.output(None)) == "old\n"
    assert "work → fails:" in repr(first)
    assert "work → fails_later:" in repr(second)
    assert first.wait_until(dead=1).dead == 1
    with pytest.raises(TimeoutError, match="this handle was replaced"):
        first.wait_until(dead=2, timeout=20)


def test_consume_again_with_other_settings_finishes_and_starts_a_new_worker(settings, capsys):
    """With other options the old worker finishes its message, and a new worker gets the rest."""
    begun, gate = threading.Event(), threading.Event()

    def waits(n: int) -> int:
        begun.set()
        gate.wait(10)
        return n

    first = consume("work", waits, settings, writes="out")
    send(settings, 1, 2, 3)
    assert begun.wait(10)
    threading.Timer(0.2, gate.set).start()
    second = consume("work", double, settings, writes="out", concurrency=2)

    assert first.statistics().done == 1
    assert first.worker.is_stopping
    assert consumers(settings) == 1
    second.wait_until(done=2)
    assert sorted(m.data for m in drain("out", settings=settings)) == [1, 4, 6]
    assert "replaced the consumer of 'work': double v2 has started" in capsys.readouterr().err


def test_consume_again_says_that_the_old_handler_hangs(settings, capsys, monkeypatch):
    """A handler that does not end is left, and its message is redelivered."""
    monkeypatch.setattr(registry, "REPLACE_TIMEOUT", 0.2)
    begun, gate = threading.Event(), threading.Event()

    def hangs(_: int) -> None:
        begun.set()
        gate.wait(20)

    consume("work", hangs, settings)
    send(settings, 1)
    assert begun.wait(10)
    handle = consume("work", double, settings, concurrency=2)
    handle.wait_until(done=1)
    gate.set()

    assert "1 of its messages were given back to the queue" in capsys.readouterr().err


def test_consume_interrupted_while_the_old_handler_hangs(settings):
    """An interrupt returns at once; the old worker still ends, and a new call starts a new one."""
    begun, gate = threading.Event(), threading.Event()

    def hangs(_: int) -> None:
        begun.set()
        gate.wait(20)

    first = consume("work", hangs, settings)
    send(settings, 1)
    assert begun.wait(10)
    with interrupted():
        consume("work", double, settings, concurrency=2)
    assert registry.handles() == []
    gate.set()
    consume("work", double, settings, concurrency=2)

    wait_for(lambda: first.statistics().state == "closed")
    assert first.statistics().done == 1
    assert consumers(settings) == 1


def test_consume_changes_between_functions_and_coroutines(settings):
    """They need another executor, so a new worker starts; there is one consumer."""
    first = consume("work", double, settings, writes="out")
    second = consume("work", halve, settings, writes="out")
    send(settings, 5)
    second.wait_until(done=1)

    assert first.worker is not second.worker
    assert consumers(settings) == 1
    assert [m.data for m in drain("out", settings=settings)] == [2.5]


def test_consumers_with_names_stand_side_by_side(settings):
    """Another name is another consumer; the same name replaces."""
    one = consume("work", double, settings, name="one")
    two = consume("work", double, settings, name="two")
    consume("work", double, settings, name="two")

    assert consumers(settings) == 2
    assert one.is_running
    assert two.replaced
    assert one.attached().elsewhere == 0


def test_consume_leaves_what_runs_when_it_cannot_begin(settings):
    """An argument that is wrong raises, and the consumer that runs goes on."""
    handle = consume("work", double, settings)

    with pytest.raises(TypeError, match="cannot handle messages"):
        consume("work", int.__add__, settings)
    with pytest.raises(ValueError, match="concurrency"):
        consume("work", double, settings, concurrency=0)
    with pytest.raises(SettingsError, match="control characters"):
        consume("wo\nrk", double, settings)

    assert registry.handles() == [handle]
    assert handle.is_running


def test_consume_that_does_not_start_leaves_nothing(settings):
    """After a failed start there is no consumer, no thread and no handle."""
    before = set(threading.enumerate())
    with pytest.raises(AccessRefused):
        consume("work", double, settings.replace(password="x"))

    assert registry.handles() == []
    wait_for(lambda: not set(threading.enumerate()) - before)


def test_consume_starts_a_new_worker_after_a_failure(settings):
    """A consumer that has failed is replaced by a new worker."""
    first = consume("work", double, settings)
    first.worker.fail(mousetrap.MousetrapError("no way to go on"))
    second = consume("work", double, settings)

    assert second.worker is not first.worker
    assert second.is_running


def test_consume_says_who_else_consumes(settings, capsys):
    """At the start and in the handle: how many consume, and in which processes."""
    with other_process(settings) as other:
        handle = consume("work", double, settings)
        said = capsys.readouterr().err
        shown = repr(handle)

    for text in (said, shown):
        assert "2 attached, 1 is not from this process: you will see about half" in text
        assert f"pid {other.pid}" in text


# ---- the end -------------------------------------------------------------------------------------

SCRIPT = """
import os, sys, threading
from mousetrap import consume

def slow(seconds: float) -> float:
    print("begun", file=sys.__stdout__, flush=True)
    threading.Event().wait(seconds)
    return seconds

handle = consume("work", slow, writes="out")
handle.wait_until(received=1)
if os.fork() == 0:
    sys.exit()  # the consumer belongs to the parent: the child must not stop it
sys.stdin.readline()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_script_that_ends_leaves_no_consumer(settings):
    """At exit a message in progress is finished if it is quick; the others return to the queue."""
    declare("out", settings=settings)
    send(settings, 0.5, 0.5, 0.5)
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], env=os.environ | settings.to_environment(),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "begun\n"
    _, errors = process.communicate("\n", timeout=20)

    assert process.returncode == 0, errors
    wait_for(lambda: consumers(settings) == 0)
    assert depth("out", settings).messages == 1
    assert depth("work", settings).messages == 2
