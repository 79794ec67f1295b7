"""``mousetrap send``."""

from __future__ import annotations

import json

from mousetrap.job_queue import declare, drain, open_channel
from mousetrap.run_fetch_worker import fetch


def test_send_confirms_each(run, settings):
    """The messages are confirmed, counted and in the queue."""
    result = run("send", "work", '{"seed": 1}', "--count", 5, "--declare", "--json")

    answer = json.loads(result.stdout)
    assert (result.exit_code, answer["sent"], answer["confirmed"]) == (0, 5, 5)
    assert [m.data for m in drain("work", settings=settings)] == [{"seed": 1}] * 5


def test_send_reads_files_and_standard_input(run, settings, tmp_path):
    """A .jsonl file has one body on each line; '-' reads standard input."""
    lines = tmp_path / "jobs.jsonl"
    lines.write_text('{"n": 1}\n\n{"n": 2}\n')
    declare("work", settings=settings)

    assert run("send", "work", "--file", lines).exit_code == 0
    assert run("send", "work", "-", input="[3]").exit_code == 0

    assert [m.data for m in drain("work", settings=settings)] == [{"n": 1}, {"n": 2}, [3]]


def test_send_without_a_body_triggers_a_stage(run, settings):
    """An empty body is the tutorial's trigger."""
    with fetch.start(settings) as worker:
        assert run("send", "start_fetch").exit_code == 0
        worker.wait_until(done=1)


def test_send_later_and_first(run, settings):
    """It waits in the delay queue, with its priority; a queue that is missing is named."""
    declare("work", settings=settings)

    assert run("send", "work", '"later"', "--delay", 3600, "--priority", 3).exit_code == 0
    missing = run("send", "wrk", '"later"', "--delay", 3600)

    assert missing.exit_code != 0
    assert "there is no queue 'wrk'" in missing.output
    with open_channel(settings) as channel:
        name = settings.topology.wire_name("work.delay.3600s")
        _, properties, body = channel.basic_get(name, True)
    assert (body, properties.priority) == (b'"later"', 3)


def test_send_refuses_a_delay_beyond_a_week(run):
    """The text says what is possible."""
    result = run("send", "work", "--delay", 604801)

    assert result.exit_code == 2
    assert "seven days" in result.output


def test_send_names_the_bad_line(run, tmp_path):
    """The error has the line number that an editor shows; nothing is sent."""
    lines = tmp_path / "jobs.jsonl"
    lines.write_text('{"n": 1}\n\n{"n": \n')

    result = run("send", "work", "--file", lines)

    assert result.exit_code == 2
    assert "line 3 of" in result.output


def test_send_of_nothing_is_an_error(run, tmp_path):
    """An empty .jsonl file is an error, not a success."""
    (tmp_path / "jobs.jsonl").write_text("\n")

    assert run("send", "work", "--file", tmp_path / "jobs.jsonl").exit_code == 2


def test_send_raw_sends_any_bytes(run, settings):
    """With --raw it sends the bytes that the shell passed, UTF-8 or not."""
    declare("work", settings=settings)

    assert run("send", "work", "{bad \udcff", "--raw").exit_code == 0

    assert [m.body for m in drain("work", settings=settings)] == [b"{bad \xff"]
