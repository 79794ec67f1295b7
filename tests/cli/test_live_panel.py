"""The panel of `mousetrap work` and `mousetrap check` on a terminal."""

from __future__ import annotations

import dataclasses
import io
import os
import re
import signal
import sys

import pytest
from rich.console import Console
from support.command_line import drain_when_there, read_until, send
from support.surfaces import running_view, settled_view, troubled_view

from mousetrap.check import CheckProgress
from mousetrap.cli import progress as check_progress
from mousetrap.display import progress
from mousetrap.notebook import panel_text
from mousetrap.notebook.freshness import AsOf
from mousetrap.notebook.panel_rich import TerminalPanel

AT = AsOf("2023-11-14 22:14:50", "")
CONTROL = re.compile(rb"\x1b\[[\d;?]*[A-Za-z]")


def lines_of(view, width):
    """Return the lines that a terminal of this *width* shows of *view*."""
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=True)
    console.print(TerminalPanel(view, AT, 12))
    return console.file.getvalue().splitlines()


def read_to_end(terminal):
    """Return what a terminal got before its last program has closed it."""
    seen = b""
    try:
        while part := os.read(terminal, 4096):
            seen += part
    except OSError:  # as Linux ends it
        pass
    return seen


@pytest.mark.parametrize("make", [running_view, settled_view, troubled_view])
def test_a_terminal_has_the_words_and_numbers_of_the_text(make):
    """But for signs and spaces, and columns of which nothing is known."""

    def words(lines):
        lines = [re.sub("[●■✕↻─▁-█–]", " ", line) for line in lines if "stage  " not in line]
        return [each for line in lines for each in line.split()]

    view = make()

    assert words(lines_of(view, 200)) == words(panel_text.text(view, AT, 12).splitlines())


@pytest.mark.parametrize("width", [50, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal(width):
    """Pictures get the room that is left; lines of prose are cut at their ends."""
    view = running_view()
    lines = lines_of(view, width)

    assert max(map(len, lines)) <= width
    assert len(lines) == len(lines_of(view, 200))
    assert any("▁▁▁" in line for line in lines) == (width >= 100)


def test_a_column_of_which_nothing_is_known_is_left_out():
    """As of a notebook that is checked: how many messages wait is not known there."""
    unknown = {"waiting": None, "in_progress": None, "oldest": ""}
    view = running_view()
    stages = [dataclasses.replace(each, **unknown) for each in view.stages]
    heads = next(line for line in lines_of(dataclasses.replace(view, stages=tuple(stages)), 120)
                 if "stage" in line and "done" in line)  # fmt: skip

    assert heads.split() == ["stage", "per", "s", "done", "retried", "dead", "last", "minute"]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no pty on Windows")
def test_work_shows_its_panel_on_a_terminal(start, settings):
    """Above it is what handlers print and log; it is gone at the end, the summary line stays."""
    terminal, side = os.openpty()
    process = start("work", "flow:fail", stdout=side, stderr=side, TERM="xterm", COLUMNS="100")
    os.close(side)
    seen = read_until(terminal, b"Waiting for messages", 30)
    send(settings, 1, 2, 3, 4)
    seen += read_until(terminal, b"Next: mousetrap dead list work")
    seen += read_until(terminal, b"dead: 3 ValueError, 1 KeyError")
    seen += read_until(terminal, "0 waiting or in work · 4 dead".encode())
    process.send_signal(signal.SIGTERM)
    seen += read_to_end(terminal)
    os.close(terminal)

    assert process.wait(10) == 0
    text = CONTROL.sub(b"", seen).decode()
    assert "0 of 4 messages done (0 %) · 0 waiting or in work · 4 dead" in text
    assert len(re.findall(r"attempt 2: ValueError -> work\.dead", text)) == 1
    last = seen.rpartition(b"\x1b[?25h")[2]  # the cursor is shown again
    assert re.findall(rb"\S[^\r\n]*", CONTROL.sub(b"", last)) == [
        b"fail: 0 done, 4 retried, 4 dead (3 ValueError, 1 KeyError), 0 reconnects"
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no pty on Windows")
@pytest.mark.parametrize("options", [["--json"], ["--log-format", "json"]])
def test_work_for_programs_shows_no_panel(start, settings, options):
    """On a terminal, too."""
    terminal, side = os.openpty()
    process = start("work", "flow:wait", *options, stderr=side, TERM="xterm", COLUMNS="100")
    os.close(side)
    seen = read_until(terminal, b"working: work", 30)
    send(settings, progress.SHOWN_AFTER)
    assert len(drain_when_there("out", 1, settings)) == 1
    process.send_signal(signal.SIGTERM)
    seen += read_to_end(terminal)
    os.close(terminal)

    assert b"\x1b" not in seen
    assert b"waiting" not in seen


def test_check_shows_the_panel_of_the_run_on_a_terminal(monkeypatch):
    """It has the counts, which the line beside the bar then leaves out."""
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "SHOWN_AFTER", 0.0)
    monkeypatch.setenv("COLUMNS", "100")
    counts = {"fetch": {"done": 88, "retried": 3, "dead": 2}, "process": {"done": 80}}
    with check_progress.watch_notebook("a.ipynb") as show:
        show(CheckProgress(1, 3, 2, "run.settle()", counts, 30))

    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", stream.getvalue())
    assert re.search(r"a\.ipynb: cells .* cell 2: run\.settle\(\) *\r?\n? *● Working", shown), shown
    assert "168 of 200 messages done (84 %) · 30 waiting or in work · 2 dead" in shown
    assert "88 done" not in shown
