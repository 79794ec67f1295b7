"""How the commands print: tables without boxes, whole addresses, folded prose; plain in a pipe."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from mousetrap.cli import console
from mousetrap.cli.console import (
    print_error,
    print_findings,
    print_message,
    print_pairs,
    print_table,
)

URL = "amqp://user@a-rather-long-name.of-a-broker.example.com:5672/%2F"
PROSE = "the record is gone and nobody knows where it went, so ask the owner of the data first"
ROWS = [("first", 1, 12_345, "4.1 kB", URL, PROSE), ("second", None, 7, "12 B", "–", "")]
HEADS = ("name", "attempt", "messages", "size", "address", "reason")


@pytest.fixture
def printed(monkeypatch):
    """Return what a call prints on a terminal of some width, or into a pipe (width None)."""

    def run(width, call):
        stream = io.StringIO()

        def make(**options):
            terminal = {"force_terminal": True, "width": width, "no_color": True} if width else {}
            return Console(file=stream, highlight=False, color_system=None, **terminal, **options)

        monkeypatch.setattr(console, "out", lambda: make(soft_wrap=width is None))
        monkeypatch.setattr(console, "err", lambda: make(soft_wrap=True))
        call()
        return stream.getvalue()

    return run


def show_table():
    print_table(HEADS, ROWS, f"all of {URL}", prose=["reason"])


@pytest.mark.parametrize("width", [60, 80, 200, None])
def test_table_keeps_names_and_addresses_whole(printed, width):
    """Whatever the width; the only line of a table is the rule below its head."""
    shown = printed(width, show_table)

    title, head, rule, *rows = shown.splitlines()
    assert title == f"all of {URL}"
    assert head.split() == list(HEADS)
    assert set(rule) == {"─"}
    assert "│" not in shown
    assert sum(URL in row for row in rows) == 1
    assert any(row.startswith("second ") for row in rows)


def test_table_in_a_pipe_has_a_line_for_each_row(printed):
    """`grep` and `wc -l` work, and there is no colour."""
    shown = printed(None, show_table)

    assert len(shown.splitlines()) == 3 + len(ROWS)
    assert PROSE in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize("width", [60, 100])
def test_table_folds_prose_at_words(printed, width):
    """Its words stay whole, and it takes the room that is left."""
    shown = printed(width, lambda: print_table(("id", "reason"), [("a1", PROSE)], prose=["reason"]))

    assert all(len(line) <= width for line in shown.splitlines())
    assert set(PROSE.split()) <= set(shown.split())


def test_table_aligns_numbers_at_their_right_ends(printed):
    """Also those with a unit, and an unknown one; text is at the left."""
    head, _, first, second = printed(200, show_table).splitlines()[1:]

    for column, values in {"attempt": ("1", "–"), "messages": ("12,345", "7"),
                           "size": ("4.1 kB", "12 B")}.items():  # fmt: skip
        end = head.index(column) + len(column)
        assert [line[:end].endswith(f" {value}") for line, value in
                zip((first, second), values, strict=True)] == [True, True]  # fmt: skip
    assert first.startswith("first ")


@pytest.mark.parametrize("width", [60, 80])
def test_error_is_folded_at_words(printed, width):
    """No address is cut, and lines that were indented stay so."""
    text = f"no broker listens at {URL}: start one (mousetrap broker up)\n  {PROSE}"

    shown = printed(width, lambda: print_error(text))

    assert shown.startswith("error: ")
    assert " ".join(shown.split()) == " ".join(f"error: {text}".split())
    assert all(len(line) <= width or line.strip(": ") in URL for line in shown.splitlines())
    assert [line[:2] for line in shown.splitlines()[-2:]] == ["  ", "  "]


def test_error_in_a_pipe_keeps_its_lines(printed):
    """A program that reads it finds the sentence on one line."""
    assert printed(None, lambda: print_error(PROSE * 3)) == f"error: {PROSE * 3}\n"


def test_message_with_a_command_is_not_folded(printed):
    """It can be copied."""
    shown = printed(60, lambda: print_message(PROSE, is_folded=False))

    assert shown == f"{PROSE}\n"


def test_findings_and_pairs_are_folded_below_their_text(printed):
    """What a line is about stands alone in its column."""
    findings = printed(60, lambda: print_findings([("ok", "login", PROSE, "do this")]))
    pairs = printed(60, lambda: print_pairs({"seed": 3, "reason": PROSE}))

    assert [line[:20].split() for line in findings.splitlines()] == [["ok", "login"], [], [], []]
    assert findings.splitlines()[-1] == f"{'':20}→ do this"
    assert [line[:9].split() for line in pairs.splitlines()] == [["seed"], ["reason"], []]


@pytest.mark.parametrize(("colour", "is_coloured"), [("1", False), (None, True)])
def test_no_color_is_respected(monkeypatch, colour, is_coloured):
    """With NO_COLOR a terminal gets bold text at most."""
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if colour:
        monkeypatch.setenv("NO_COLOR", colour)

    print_error("no")

    assert ("31m" in terminal.getvalue()) == is_coloured
