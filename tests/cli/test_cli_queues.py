"""``mousetrap queues``, ``peek`` and ``drain``."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading

import pytest
from support.command_line import read_until, send
from support.waiting import wait_for

import mousetrap
from mousetrap.amqp.publisher import Publisher
from mousetrap.job_queue import declare, depth
from mousetrap.model.message import Message
from mousetrap.model.topology import Queue
from mousetrap.worker.worker import Worker


def test_queues_shows_depths(run, settings):
    """It prints a table for people and JSON for scripts."""
    send(settings, 1, 2)

    assert json.loads(run("queues", "work", "--json").stdout) == [
        {
            "queue": "work",
            "messages": 2,
            "consumers": 0,
            "workers": 0,
            "held": 0,
            "prefetch": None,
        }
    ]
    assert "work.dead" in run("queues", "work", "work.dead").output


@pytest.mark.parametrize("prefetches", [(None,), (3, 7)])
def test_queues_shows_what_workers_hold(run, settings, prefetches):
    """What was delivered to workers is in no queue, and yet it is shown."""
    send(settings, *range(9))
    gate = threading.Event()
    with contextlib.ExitStack() as stack:
        for prefetch in prefetches:
            worker = Worker(Queue("work"), lambda _: gate.wait(60), settings, prefetch=prefetch)
            stack.enter_context(worker)
        stack.callback(gate.set)
        expected = 9 if len(prefetches) > 1 else 2  # one is handled, and one is prefetched
        wait_for(lambda: depth("work", settings).messages == 9 - expected)

        [shown] = json.loads(run("queues", "work", "--json").stdout)
        text = run("queues", "work").output

    assert shown["held"] == expected
    assert shown["workers"] == shown["consumers"] == len(prefetches)
    assert shown["prefetch"] == ([2, 2] if prefetches == (None,) else [3, 7])
    assert f" {expected} " in text
    assert ("3 to 7" if prefetches != (None,) else " 2") in text


def test_queues_says_that_consumers_of_other_libraries_may_hold_more(run, settings):
    """They do not answer: alone they are "?", beside a worker of ours the number has a plus."""
    send(settings, *range(9))
    with mousetrap.open_channel(settings) as channel:
        channel.basic_qos(prefetch_count=2)
        channel.basic_consume(settings.topology.wire_name("work"), lambda *_: None)
        alone = run("queues", "work")
        gate = threading.Event()
        with Worker(Queue("work"), lambda _: gate.wait(60), settings):
            wait_for(lambda: depth("work", settings).messages == 5)
            both = run("queues", "work")
            gate.set()

    assert " ? " in alone.output
    assert " 2+ " in both.output


def test_peek_leaves_and_drain_takes(run, settings):
    """`peek` leaves the messages in the queue, `drain` takes the same messages out."""
    send(settings, {"n": 1}, {"n": 2})

    peeked = [json.loads(line) for line in run("peek", "work", "--json").stdout.splitlines()]
    drained = [json.loads(line) for line in run("drain", "work", "--json").stdout.splitlines()]

    assert [each["data"] for each in peeked] == [each["data"] for each in drained]
    assert depth("work", settings).messages == 0


HOSTILE = [
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "\x1b]8;;http://evil\x07click\x1b]8;;\x07",
    "\x9b31m",
    "a\rb",
    "\x08\x08\x08",
    "\u202egnp.exe",
    "\u2066x\u2069",
    "[bold]markup[/bold]",
    "[link=http://evil]x[/link]",
    "\x00",
    "\x7f",
]


@pytest.mark.parametrize("body", HOSTILE)
def test_hostile_bodies_are_escaped_on_the_terminal(run, settings, body):
    """Control bytes and bidi controls are escaped; Rich markup is printed as text."""
    declare(Queue("work"), settings=settings)
    with Publisher(settings) as publisher:
        publisher.publish(Message(body=body.encode()), "work").wait()

    shown = run("peek", "work").output.replace("\n", "")

    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in shown)
    assert not any(char in shown for char in "\u202e\u2066\u2069")
    if "[" in body and "\x1b" not in body:
        assert body[:6] in shown


def test_drain_fails_when_too_few_came(run, settings):
    """Exit code 1 if two were wanted and one came; the one is printed."""
    send(settings, 1)

    result = run("drain", "work", "-n", 2, "--timeout", 2, "--json")

    assert result.exit_code == 1
    assert json.loads(result.stdout)["data"] == 1
    assert "1 of 2" in result.stderr


def test_drain_with_idle_takes_what_is_there(run, settings):
    """With --idle, -n is only a limit."""
    send(settings, 1)

    assert run("drain", "work", "-n", 2, "--idle", 0.1).exit_code == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there is no pty on Windows")
def test_drain_writes_to_its_file_while_a_terminal_watches(start, settings):
    """With `drain --json > file` the file gets the messages, the terminal only the progress."""
    send(settings, {"n": 1})
    terminal, side = os.openpty()
    process = start("drain", "work", "--json", "-n", "2", stderr=side, TERM="xterm")
    first = process.stdout.readline()
    seen = read_until(terminal, b"draining work")  # the bar, for this takes longer than 2 s
    send(settings, {"n": 2})
    output, _ = process.communicate(timeout=10)
    os.close(side)
    os.close(terminal)

    assert [json.loads(line)["data"] for line in [first, output]] == [{"n": 1}, {"n": 2}]
    assert b'"data"' not in seen


def test_terminate_is_like_interrupt_for_drain(start, settings):
    """`timeout 10 mousetrap drain` sends SIGTERM; the messages already taken are printed."""
    declare(Queue("work"), settings=settings)
    process = start("drain", "work", "-n", "5")
    for data in (0.25, 0.5):  # when it takes the second, it has the first
        send(settings, data)
        wait_for(lambda: depth("work", settings).messages == 0)

    process.terminate()
    output, problems = process.communicate(timeout=10)

    assert process.returncode == 128 + signal.SIGTERM
    assert "0.25" in output
    assert "terminated" in problems
    assert "Traceback" not in problems


def test_old_code_pages_do_not_break_the_output(start, settings):
    """Characters that a terminal cannot show are escaped, so no message is lost by them."""
    send(settings, "Øre → ☃")

    output, problems = start("drain", "work", PYTHONIOENCODING="ascii").communicate(timeout=10)

    assert "\\u2603" in output, problems
