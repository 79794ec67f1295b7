"""What a person can type next: calls with the names that the notebook has for the objects.

A surface knows its object and not what the user calls it. So the name is looked up among the
variables of the notebook; a program, or an object without a name there, gets the usual name.
"""

from __future__ import annotations

import html
import sys
from collections.abc import Sequence
from operator import attrgetter

from mousetrap.display.safe_text import safe
from mousetrap.runtime.environment import ipython_shell


def name_of(value: object, usual: str) -> str:
    """Return the name of the variable of the notebook that is *value*; else *usual*."""
    shell = ipython_shell()
    names = [] if shell is None else list(shell.user_ns.items())  # a copy: a cell may add some
    found = [name for name, each in names if each is value and not name.startswith("_")]
    return found[0] if found and usual not in found else usual


def call_of(function: str, arguments: str) -> str:
    """Return a call of this *function* of the package: ``mousetrap.dead(run)``."""
    package = sys.modules["mousetrap"]
    alone = name_of(attrgetter(function)(package), "")
    name = alone or f"{name_of(package, 'mousetrap')}.{function}"
    return f"{name}({arguments})"


def text_of(calls: Sequence[str]) -> str:
    """Return *calls* as a line: ``Next: run.results() · run.plot()``; "" if there are none."""
    return f"Next: {safe(' · '.join(calls))}" if calls else ""


def html_of(calls: Sequence[str]) -> str:
    """Return the same as HTML; a call is broken only where a line is too short for it."""
    style = "white-space:normal;overflow-wrap:anywhere"
    shown = (f"<code style='{style}'>{html.escape(safe(each))}</code>" for each in calls)
    return f"Next: {' · '.join(shown)}" if calls else ""
