"""The page of error messages: each heading is a text of the package, and each error is there."""

from __future__ import annotations

import inspect
import re
from functools import cache

import pytest
from support.documentation import PAGES
from test_advice import FILLED, texts_of, wrong_commands, wrong_variables
from test_architecture import FILES, tree

from mousetrap import errors

PAGE = (PAGES / "troubleshooting.md").read_text(encoding="utf-8")
HEADINGS = re.findall(r"^### (.+)$", PAGE, re.MULTILINE)


@cache
def texts() -> tuple[str, ...]:
    """Return the texts of the package on one line each; ``…`` stands for a value in them."""
    return tuple(
        " ".join(text.split())
        for path in FILES
        for _, text in texts_of(tree(path), docstrings=False)
    )


@pytest.mark.parametrize("heading", HEADINGS)
def test_heading_is_a_message_of_the_package(heading):
    """Who changes a message changes the page: a reader searches for what the program printed."""
    words = heading.removesuffix(FILLED).strip()

    assert any(words in text for text in texts())


def test_every_error_is_explained():
    """Each error of the tree that has no subclass is on the page."""
    tree_of_errors = [
        found
        for found in vars(errors).values()
        if inspect.isclass(found) and issubclass(found, errors.MousetrapError)
    ]
    leaves = {each.__name__ for each in tree_of_errors if not each.__subclasses__()}
    # `Reject` is raised by a handler, and its subclass is there.
    assert sorted(leaves - set(re.findall(r"(?<=\[`)\w+(?=`\])", PAGE))) == []


@pytest.mark.parametrize("name", ["troubleshooting", "not_supported"])
def test_advice_of_a_page_can_be_followed(name):
    """Each command, option and variable that it names exists."""
    page = re.sub(r"^###.*$", "", (PAGES / f"{name}.md").read_text("utf-8"), flags=re.MULTILINE)
    spans = re.findall(r"`([^`]+)`", page)

    assert [wrong for each in spans for wrong in wrong_commands(each)] == []
    assert [wrong for each in spans for wrong in wrong_variables(each)] == []
