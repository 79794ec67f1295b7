"""``mousetrap work``."""

from __future__ import annotations

import json
import re
import signal

from support.command_line import drain_when_there, send
from support.waiting import wait_for

from mousetrap.job_queue import declare, depth, drain


def test_work_runs_a_stage_until_sigterm(start, settings):
    """It prints what it works on, works, and prints a summary after SIGTERM."""
    send(settings, 0.01, 0.01, 0.01)
    process = start("work", "flow:wait", "--concurrency", "2", "--json")

    assert len(drain_when_there("out", 3, settings)) == 3
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=10)

    assert process.returncode == 0, errors
    assert "working: work → wait → out, concurrency 2" in errors
    assert json.loads(output)["done"] == 3
    assert settings.password not in errors


def test_work_prints_what_it_waits_for_after_a_signal(start, settings):
    """It prints how long the message in progress may take, and what a second signal does."""
    send(settings, 30)
    process = start("work", "flow:wait")
    assert "working" in process.stderr.readline()
    wait_for(lambda: depth("work", settings).messages == 0)  # it has taken it

    process.send_signal(signal.SIGTERM)
    assert "stopping: 1 in progress, which may take up to 6 s" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)

    assert process.returncode == 128 + signal.SIGINT
    wait_for(lambda: depth("work", settings).messages == 1)  # it comes again


def test_work_logs_one_dead_letter_of_each_kind(start, settings):
    """The others are counted; with `--log-level info` there is a line for each failed attempt."""
    found = {}
    for level in ("warning", "info"):
        send(settings, 1, 2, 3, 4)
        process = start("work", "flow:fail", "--log-level", level)
        assert len(drain_when_there("work.dead", 4, settings)) == 4
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
        assert "fail: 0 done, 4 retried, 4 dead (3 ValueError, 1 KeyError), 0 reconnects" in errors
        found[level] = re.findall(r"attempt (\d): (\w+) -> work\.(\w+)", errors)

    assert sorted(found["warning"]) == [("2", "KeyError", "dead"), ("2", "ValueError", "dead")]
    assert sorted(kind for _, kind, _ in found["info"]) == ["KeyError"] * 2 + ["ValueError"] * 6


def test_work_refuses_an_unknown_log_level(start):
    """It names those that there are."""
    _, problems = start("work", "flow:fail", "--log-level", "loud").communicate(timeout=20)

    assert "'loud' is no log level: use one of debug, info, warning, error" in problems


def test_work_runs_a_plain_function(start, settings):
    """It runs any function of one argument, with the queues of the command line."""
    send(settings, 21)
    start("work", "flow:double", "--reads", "work", "--writes", "out")

    assert [m.data for m in drain_when_there("out", 1, settings)] == [42]


def test_work_writes_to_several_queues(start, settings):
    """In processes of their own, too: each output goes to each queue."""
    send(settings, 21)
    declare("out", "archive", settings=settings)
    queues = ["--reads", "work", "--writes", "out", "--writes", "archive"]
    start("work", "flow:double", *queues, "--processes", "1")

    found = [drain(each, 1, timeout=40, settings=settings) for each in ("out", "archive")]
    assert [[each.data for each in messages] for messages in found] == [[42], [42]]


def test_work_names_the_line_of_a_module_that_fails(start, tmp_path):
    """The error of a module that cannot be imported has file, line and the next step."""
    (tmp_path / "broken.py").write_text("x = 1\nraise LookupError('no luck')\n")
    _, problems = start("work", "broken:stage").communicate(timeout=10)

    assert "broken.py, line 2: LookupError: no luck" in problems
    assert "Traceback" not in problems


def test_work_prints_once_why_it_does_not_start(start):
    """It prints one message, without a log line of the same text and without a summary."""
    url = "amqp://nobody:wr0ng-canary@localhost"
    _, problems = start("work", "fetch", RABBITMQ_URL=url).communicate(timeout=10)

    assert len(problems.splitlines()) == 1


def test_work_with_json_keeps_prints_off_stdout(start, settings):
    """What a handler prints does not mix with the JSON."""
    send(settings, 21)
    process = start("work", "flow:double", "--reads", "work", "--writes", "out", "--json")
    drain_when_there("out", 1, settings)
    process.terminate()
    output, problems = process.communicate(timeout=10)

    assert json.loads(output)["done"] == 1
    assert "doubling" in problems


def test_work_gives_back_a_message_that_runs_too_long(start, settings):
    """A message still in progress after --grace is in its queue again, uncounted; exit code 0."""
    send(settings, 30)
    process = start("work", "flow:wait", "--grace", "0.2")
    assert "working" in process.stderr.readline()
    wait_for(lambda: depth("work", settings).messages == 0)

    process.terminate()
    _, problems = process.communicate(timeout=10)

    assert process.returncode == 0
    assert "given back to the queue: 1 message" in problems
    [message] = drain("work", settings=settings)
    assert message.losses == 0
