"""The display of progress, in a log, in a notebook and for `mousetrap check`."""

from __future__ import annotations

import io
import json
import sys
from types import SimpleNamespace

import pytest

from mousetrap.display import progress
from mousetrap.display.progress import REPORT_INTERVAL, SHOWN_AFTER, ProgressDisplay, Row
from mousetrap.runtime import clock


@pytest.fixture
def now(monkeypatch):
    """A clock that a test sets: ``now.seconds``."""
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(clock, "monotonic", lambda: now.seconds)
    monkeypatch.delenv("MOUSETRAP_PROGRESS", raising=False)
    return now


def test_row_reads_as_a_sentence():
    """Name, count and note, each only if there is one."""
    assert str(Row("sending", 500, 1000, "2 returned")) == "sending: 500 of 1,000; 2 returned"
    assert str(Row("draining", 1500)) == "draining: 1,500"
    assert str(Row(note="3 open")) == "3 open"


def test_row_has_no_count_before_anything_is_known():
    """Nothing done of an unknown total is no information."""
    assert str(Row("cells", 0, None, "starting")) == "cells; starting"
    assert str(Row("cells", 0, 1_200)) == "cells: 0 of 1,200"
    assert str(Row("cells", 3, None)) == "cells: 3"


def test_terminal_has_no_count_before_anything_is_known(now, monkeypatch):
    """Not even a question mark; then done and total."""
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("COLUMNS", "100")
    display = ProgressDisplay("cells")
    now.seconds += SHOWN_AFTER
    display.advance(0)
    unknown = stream.getvalue()
    now.seconds += progress.UPDATE_INTERVAL
    display.advance(1, 1_200)
    display.close()

    assert "cells" in unknown
    assert "0/" not in unknown
    assert "1/1,200" in stream.getvalue()


def test_log_shows_nothing_of_a_short_wait(now, capsys):
    """A wait that ends before `SHOWN_AFTER` prints no line."""
    with ProgressDisplay("sending", 10) as display:
        now.seconds += SHOWN_AFTER - 0.1
        display.advance(9)

    assert capsys.readouterr().err == ""


def test_log_has_a_line_now_and_then(now, capsys):
    """The first line after `SHOWN_AFTER`, then one every `REPORT_INTERVAL`."""
    display = ProgressDisplay("sending", 10)
    for done, seconds in ((1, SHOWN_AFTER), (2, REPORT_INTERVAL / 2), (3, REPORT_INTERVAL / 2)):
        now.seconds += seconds
        display.advance(done)
    display.close()

    assert capsys.readouterr().err == "sending: 1 of 10\nsending: 3 of 10\n"


def test_log_has_the_last_update(now, capsys):
    """The last line is printed at once, if any line was printed before."""
    display = ProgressDisplay()
    now.seconds += SHOWN_AFTER
    display.update("1 of 2 done")
    now.seconds += 0.01
    display.update("2 of 2 done", is_last=True)

    assert capsys.readouterr().err == "1 of 2 done\n2 of 2 done\n"


def test_log_escapes_control_characters(now, capsys):
    """A name or a note can come from a message."""
    ProgressDisplay().print("red \x1b[31m")

    assert capsys.readouterr().err == "red \\x1b[31m\n"


def test_hidden_display_shows_nothing(now, capsys):
    """`--quiet` hides the rows and the lines."""
    with ProgressDisplay("sending", 10, is_hidden=True) as display:
        now.seconds += SHOWN_AFTER
        display.advance(5)
        display.print("a line")

    assert capsys.readouterr().err == ""


def test_values_are_written_for_the_check(now, tmp_path, monkeypatch):
    """They are written at most four times a second; a missing folder is no error."""
    path = tmp_path / "progress.json"
    monkeypatch.setenv("MOUSETRAP_PROGRESS", str(path))
    display = ProgressDisplay()
    display.update("", {"open": 2})
    display.update("", {"open": 1})

    assert json.loads(path.read_text()) == {"open": 2}
    now.seconds += progress.UPDATE_INTERVAL
    display.update("", {"open": 0})
    assert json.loads(path.read_text()) == {"open": 0}
    progress.write_values(tmp_path / "missing" / "progress.json", {})


def test_cell_updates_one_output(now, monkeypatch):
    """A notebook's cell has one output, whose text changes in place."""
    pytest.importorskip("IPython")
    shown = []
    handle = SimpleNamespace(update=lambda data, **_: shown.append(("update", data)))
    monkeypatch.setattr(progress, "is_kernel", lambda: True)
    monkeypatch.setattr(
        "IPython.display.display", lambda data, **_: shown.append(("display", data)) or handle
    )
    display = ProgressDisplay("sending", 10)
    display.advance(1)
    for done in (2, 3):
        now.seconds += SHOWN_AFTER
        display.advance(done)

    assert shown == [
        ("display", {"text/plain": "sending: 2 of 10"}),
        ("update", {"text/plain": "sending: 3 of 10"}),
    ]


def test_terminal_shows_no_bar_for_a_short_wait(now, monkeypatch):
    """A wait that ends before `SHOWN_AFTER` writes nothing, not even control codes."""
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", stream)
    with ProgressDisplay("sending", 2) as display:
        display.advance(1)

    assert stream.getvalue() == ""


def test_terminal_shows_a_bar_and_keeps_the_last_line(now, monkeypatch):
    """Rich draws the rows, a printed line stays above them, and the last update stays."""
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("COLUMNS", "100")
    display = ProgressDisplay()
    now.seconds += SHOWN_AFTER
    display.update("1 of 2 done")
    display.print("a line\x07")
    now.seconds += progress.UPDATE_INTERVAL
    display.update("2 of 2 done", is_last=True)

    assert "1 of 2 done" in stream.getvalue()
    assert "a line\\x07\n" in stream.getvalue()
    assert stream.getvalue().endswith("2 of 2 done\n")


def test_terminal_has_a_bar_for_each_of_two_rows_with_the_same_name(now, monkeypatch):
    """Long names are cut, so two rows may have the same: their keys tell them apart."""
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("COLUMNS", "100")
    display = ProgressDisplay()
    now.seconds += SHOWN_AFTER
    display.show([Row("check: cells", 3, 9, "first", key=1), Row("check: cells", 5, 9, "other", 2)])

    display._view.close()
    assert "first" in stream.getvalue()
    assert "other" in stream.getvalue()
