"""The log of ``mousetrap work``: lines for people, or one JSON object a line."""

from __future__ import annotations

import json
import logging
import signal
import sys

import pytest
from support.command_line import drain_when_there

from mousetrap.amqp.publisher import Publisher
from mousetrap.cli.work_log import fields_of, write_log
from mousetrap.job_queue import declare
from mousetrap.model.message import Message

FLOW = """
import logging, warnings
from mousetrap import stage

log = logging.getLogger("my_flow")
logging.getLogger("chatty").setLevel(logging.ERROR)
{configured}

@stage(reads="work", writes="out", retry_delays=(0.05,))
def measure(word: str) -> int:
    log.debug("too much")
    log.info("measuring\\nnow")
    logging.getLogger("chatty").warning("never")
    if word == "bad":
        raise ValueError("SECRET-BODY")
    if word == "odd":
        warnings.warn("odd word")
        try:
            1 / 0
        except ZeroDivisionError:
            log.exception("no quotient")
    return len(word)
"""
CONFIGURED = {
    "not": "",
    "basicConfig": "logging.basicConfig(level=logging.INFO, format='MINE %(message)s')",
    "own handler": "log.addHandler(logging.StreamHandler()); log.setLevel(logging.INFO)",
    "no propagation": "log.addHandler(logging.StreamHandler()); log.setLevel(logging.INFO);"
    " log.propagate = False",
}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
IDS = {"fine": "word-number-1", "bad": "word-number-2", "odd": "word-number-3"}


@pytest.fixture
def worked(start, settings, tmp_path):
    """Work on three messages; return what was printed on stderr, as lines."""

    def work(*options, configured="not"):
        (tmp_path / "logged.py").write_text(FLOW.format(configured=CONFIGURED[configured]))
        declare("work", "out", settings=settings)
        headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
        with Publisher(settings) as publisher:
            jobs = [Message(word, id=id, headers=headers) for word, id in IDS.items()]
            publisher.publish_until_confirmed(jobs, "work")
        process = start("work", "logged:measure", *options)
        assert len(drain_when_there("out", 2, settings)) == 2
        assert len(drain_when_there("work.dead", 1, settings)) == 1
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 0, errors
        assert "too much" not in errors
        assert "never" not in errors
        return errors.splitlines()

    return work


@pytest.mark.parametrize("configured", CONFIGURED)
def test_json_has_one_object_a_line_whatever_the_application_configures(worked, configured):
    """Each line has time, level, logger and text; that of a handler also says which message."""
    records = [json.loads(line) for line in worked("--log-format", "json", configured=configured)]

    assert all(each.keys() >= {"time", "level", "logger", "text"} for each in records)
    measuring = [each for each in records if each["text"] == "measuring\nnow"]
    assert [each["message"] for each in measuring if each["attempt"] == 1] == list(IDS.values())
    assert {(each["logger"], each["stage"], each["trace"]) for each in measuring} == {
        ("my_flow", "measure", TRACE)
    }
    [failed] = [each for each in records if each.get("target", "").endswith("dead")]
    assert (failed["error"], failed["message"], failed["job"], failed["attempt"]) == (
        "ValueError", IDS["bad"], IDS["bad"], 2,
    )  # fmt: skip
    [caught] = [each for each in records if each["text"] == "no quotient"]
    assert (caught["error"], caught["message"]) == ("ZeroDivisionError", IDS["odd"])
    assert "odd word" in next(e["text"] for e in records if e["logger"] == "py.warnings")
    ours = [each for each in records if each["logger"].startswith("mousetrap")]
    assert "SECRET-BODY" not in json.dumps(ours)
    assert any(each["text"].startswith("working: work → measure") for each in ours)


def test_text_has_one_line_for_each_record(worked):
    """The application's records are formatted as ours, with the message that was handled."""
    lines = worked(configured="basicConfig")

    [line] = [each for each in lines if "no quotient" in each]
    assert "ERROR my_flow: no quotient | Traceback" in line
    assert line.endswith("[message word-num, attempt 1]")
    assert sum("INFO my_flow: measuring | now [message word-num" in each for each in lines) == 4
    assert not any(each.startswith("MINE") for each in lines)


def test_debug_logs_each_message_that_is_done(worked):
    """With its whole id, stage, attempt and seconds."""
    records = [json.loads(each) for each in worked("--log-level", "debug", "--log-format", "json")]

    done = [each for each in records if ": done in " in each["text"]]
    assert {each["message"] for each in done} == {IDS["fine"], IDS["odd"]}
    assert all(each["level"] == "debug" and each["seconds"] >= 0 for each in done)
    assert {each["stage"] for each in done} == {"measure"}


def test_processes_log_json_too(worked):
    """The lines of the supervisor are objects as well, and those of a process have its name."""
    records = [json.loads(e) for e in worked("--log-format", "json", "--processes", "2")]

    assert {each.get("process", "").rstrip("0123456789") for each in records} == {"", "measure-"}
    assert any(each["text"].startswith("2 processes of logged:measure") for each in records)


def test_the_error_that_ends_the_command_is_an_object(start):
    """As of a module that cannot be imported."""
    process = start("work", "nowhere:to_be_found", "--log-format", "json")
    _, errors = process.communicate(timeout=20)

    assert process.returncode == 2
    assert json.loads(errors)["level"] == "error"


def test_unknown_format_is_refused(start):
    """It names those that there are."""
    _, problems = start("work", "flow:fail", "--log-format", "xml").communicate(timeout=20)

    assert "'xml' is no log format: use one of text, json" in problems


@pytest.fixture
def _logging_as_before():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    ours = logging.getLogger("mousetrap")
    our_handlers, our_level = ours.handlers[:], ours.level
    yield
    root.handlers[:], ours.handlers[:] = handlers, our_handlers
    root.setLevel(level)
    ours.setLevel(our_level)
    logging.captureWarnings(capture=False)


@pytest.mark.usefixtures("_logging_as_before")
def test_handlers_that_write_elsewhere_stay(tmp_path):
    """As a file of the application's own; its level stays, too."""
    root = logging.getLogger()
    mine = logging.FileHandler(tmp_path / "mine.log")
    shown = logging.StreamHandler(sys.stderr)
    root.handlers[:] = [mine, shown]
    root.setLevel(logging.ERROR)

    write_log(logging.WARNING, "text", "", logging.Filter())

    assert mine in root.handlers
    assert shown not in root.handlers
    assert root.level == logging.ERROR
    mine.close()


def test_a_trace_that_is_none_is_left_out():
    """A header may have any text."""
    for text in ("", "00-short-1-2", 7, TRACE):
        record = logging.makeLogRecord({"of_message": Message(1, headers={"traceparent": text})})
        assert "trace" not in fields_of(record)
