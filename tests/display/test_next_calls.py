"""Calls that are shown have the names which the notebook has for the objects."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import mousetrap
from mousetrap.display import next_calls


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        (None, "mousetrap.dead(run)"),
        ({}, "mousetrap.dead(run)"),
        ({"mousetrap": mousetrap, "_1": "it"}, "mousetrap.dead(run)"),
        ({"mt": mousetrap, "mine": "it"}, "mt.dead(mine)"),
        ({"dead": mousetrap.dead, "run": "it", "mine": "it"}, "dead(run)"),
    ],
)
def test_a_call_has_the_names_of_the_notebook(monkeypatch, variables, says):
    """Else the usual ones: as in the README."""
    it = object()
    known = {name: it if each == "it" else each for name, each in (variables or {}).items()}
    shell = None if variables is None else SimpleNamespace(user_ns=known)
    monkeypatch.setattr(next_calls, "ipython_shell", lambda: shell)

    assert next_calls.call_of("dead", next_calls.name_of(it, "run")) == says


def test_calls_are_one_line_in_text_and_code_in_html():
    """A name may come from a queue: markup in it is escaped."""
    calls = ("mousetrap.dead('<b>')", "run.plot()")

    assert next_calls.text_of(calls) == "Next: mousetrap.dead('<b>') · run.plot()"
    assert "&lt;b&gt;" in next_calls.html_of(calls)
    assert next_calls.text_of(()) == next_calls.html_of(()) == ""
