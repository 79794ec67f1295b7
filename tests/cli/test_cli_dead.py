"""``mousetrap dead list|replay|purge``."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys

import pytest
from support.command_line import read_until, send

from mousetrap.amqp.publisher import Publisher
from mousetrap.job_queue import depth, drain


def test_dead_list_replay_and_purge(run, start, settings):
    """A dead letter is listed with its reason, sent back to its queue, or deleted."""
    send(settings, "not a number")
    process = start("work", "flow:wait", "--retry-delays", "")
    [letter] = drain("work.dead", 1, timeout=30, settings=settings)
    with Publisher(settings) as publisher:  # put it back where it was: drained only to wait for it
        publisher.publish(letter, "work.dead").wait()
    process.terminate()
    process.wait(10)

    listed = json.loads(run("dead", "list", "work", "--json").stdout)
    assert listed["reason"].startswith("UndecodableMessage: wrong type")
    shown = " ".join(run("dead", "list", "work", "--traceback").output.split())
    assert shown.startswith("✕ 1 dead letter of work: 1 kind of error letters attempts first last")
    assert "UndecodableMessage: wrong type" in shown
    assert "next: mousetrap dead list work --each" in shown
    assert shown.count(listed["id"][:8]) == 2  # in the table, and above the traceback
    assert "1 dead letter of work" in run("dead", "list", "work", "--each").output

    assert json.loads(run("dead", "replay", "work", "--json").stdout) == {"replayed": 1}
    assert depth("work", settings).messages == 1
    assert run("dead", "purge", "work").exit_code == 2  # nobody to ask
    assert run("dead", "purge", "work", "--yes").exit_code == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there is no pty on Windows")
@pytest.mark.parametrize(
    ("answer", "code", "left"), [(b"y\n", 0, 0), (b"n\n", 1, 1), (signal.SIGINT, 130, 1)]
)
def test_purge_asks_a_person(start, settings, answer, code, left):
    """It deletes after yes, not after no or Ctrl-C."""
    send(settings, 1, queue="work.dead")
    terminal, side = os.openpty()
    process = start("dead", "purge", "work", stdin=side, stderr=side)
    seen = read_until(terminal, b"[y/N]")

    if isinstance(answer, bytes):
        os.write(terminal, answer)
    else:
        process.send_signal(answer)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(2)
        if process.poll() is None:  # it came just before the read began: a person presses again
            process.send_signal(answer)

    assert process.wait(10) == code
    assert depth("work.dead", settings).messages == left
    assert b"Delete 1 message of work.dead?" in seen
    os.close(side)
    os.close(terminal)


def test_replay_of_an_unknown_id_fails(run, settings):
    """An id that no dead letter has gives exit code 1."""
    send(settings, 1, queue="work.dead")

    result = run("dead", "replay", "work", "--id", "nobody")

    assert result.exit_code == 1
    assert "mousetrap dead list work" in result.output
    assert run("dead", "replay", "work", "--id", "").exit_code == 2
