"""Errors of the package in a cell: the user's lines and one text; all frames on demand."""

from __future__ import annotations

import re
import traceback

import pytest
from support.kernel import Kernel

from mousetrap.errors import MousetrapError, SettingsError

pytestmark = pytest.mark.timeout(120)

HINT = "%tb shows all frames, also those inside mousetrap."
PACKAGE = r"mousetrap[/\\]\w+"  # of a frame's path
COLOURS = re.compile(r"\x1b\[[\d;]*m")
DEFINITIONS = """
def outer():
    return mousetrap.Settings(port=-3)

def values():
    yield 1
    mousetrap.Settings(port=-3)

class Unlucky(ValueError): pass
"""


@pytest.fixture(scope="module")
def cells():
    """A kernel for all tests of this file; returns the error of a cell, and its plain traceback."""
    with Kernel({"MOUSETRAP_BROKER": "embedded"}) as kernel:
        kernel.run("import mousetrap\nfrom mousetrap.errors import *" + DEFINITIONS)

        def run(code):
            cell = run.last = kernel.finish(kernel.start(code))
            return cell.error, COLOURS.sub("", cell.traceback)

        yield run


@pytest.mark.parametrize(
    ("code", "is_printed"),
    [
        ("mousetrap.send('nowhere', 1, settings=embedded)", False),
        ("print(mousetrap.send('nowhere', 1, settings=embedded))", True),
        ("result = mousetrap.send('nowhere', 1, settings=embedded)", True),
        ("result", False),
    ],
)
def test_messages_that_were_not_sent_are_reported_once(cells, code, is_printed):
    """By the value of the cell; if the cell does not show it, by the log."""
    cells(f"embedded = mousetrap.broker.ensure('embedded', log=lambda _: None).settings\n{code}")
    shown = cells.last

    texts = [shown.stdout, *(each.get("text/plain", "") for each in shown.shown)]
    assert [text.count("there is no queue") for text in texts if text] == [1]
    assert bool(shown.stdout) == is_printed
    assert shown.stderr == ""


KINDS = {  # code: what its traceback has, in this order
    "a bad setting": ("mousetrap.Settings(port=-3)", ["----> 1", "SettingsError: port is -3"]),
    "a function between": ("x = 1\nouter()", ["line 2", "outer()", "in outer()", "port is -3"]),
    "no broker": (
        "mousetrap.send('q', 1, settings=mousetrap.Settings(port=1))",
        ["----> 1", "BrokerUnreachable: no broker listens"],
    ),
    "code that the package calls": (
        "settings = mousetrap.broker.ensure('embedded', log=lambda _: None).settings\n"
        "mousetrap.send('q', values(), settings=settings)",
        ["----> 2", "in values()", "SettingsError: port is -3", "so far: "],
    ),
    "the handler's own error": (
        "@mousetrap.stage(reads='q')\ndef work(n: int): raise mousetrap.Reject('no such city')\n"
        "work(1)",
        ["----> 3", "work(n)", "Reject: no such city"],
    ),
    "a cause": (
        "try:\n    raise Unlucky('no luck')\nexcept Unlucky as error:\n"
        "    raise SinkError('nothing was stored') from error",
        ["SinkError: nothing was stored", "Caused by Unlucky: no luck"],
    ),
    "a cause without a text": (
        "try:\n    raise Unlucky\nexcept Unlucky as error:\n    raise SinkError('no') from error",
        ["SinkError: no", "Caused by Unlucky"],
    ),
    "what was handled": (
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    outer()",
        ["SettingsError: port", "While handling ZeroDivisionError: division by zero"],
    ),
}


@pytest.mark.parametrize(("code", "texts"), KINDS.values(), ids=KINDS)
def test_error_shows_the_lines_of_the_user_and_its_text(cells, code, texts):
    """It shows no frame of the package or of a library, and keeps its name."""
    error, shown = cells(code)

    assert error in shown
    assert not re.search(PACKAGE, shown)
    assert re.search(".*".join(map(re.escape, texts)), shown, re.DOTALL), shown


@pytest.mark.parametrize("mode", ["Plain", "Minimal"])
def test_error_follows_the_mode_of_ipython(cells, mode):
    """A user who wants less gets less."""
    _, shown = cells(f"%xmode {mode}\nouter()")
    cells("%xmode Context")

    assert "port is -3" in shown
    assert not re.search(PACKAGE, shown)
    assert "---->" not in shown


@pytest.mark.parametrize("code", ["%tb", "%tb Plain", "%xmode Verbose\nouter()"])
def test_all_frames_are_shown_on_demand(cells, code):
    """What the hint says is true, and what `%xmode` offers works."""
    _, short = cells("outer()")
    error, shown = cells(code)
    cells("%xmode Context")

    assert HINT in short
    assert error == "SettingsError"
    assert re.search(PACKAGE, shown)
    assert HINT not in shown


def test_a_text_that_names_its_cause_is_not_followed_by_it(cells):
    """Nothing is said twice."""
    _, shown = cells(
        "try:\n    raise Unlucky('no luck')\nexcept Unlucky as error:\n"
        "    raise CallFailed('dead-lettered: Unlucky: no luck') from error"
    )

    assert "Caused by" not in shown


def test_errors_of_others_are_shown_as_they_are(cells):
    """Only the package's own errors are short."""
    error, shown = cells("1 / 0")

    assert error == "ZeroDivisionError"
    assert HINT not in shown


def test_outside_ipython_nothing_changes():
    """A program's traceback has all frames, and so has the method, which nothing calls there."""
    with pytest.raises(SettingsError) as caught:
        raise SettingsError("port is -3") from ValueError("no")

    shown = caught.value._render_traceback_()
    assert shown == traceback.format_exception(caught.value)
    assert isinstance(caught.value, MousetrapError)
