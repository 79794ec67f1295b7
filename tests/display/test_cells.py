"""Cells of a table that are more than a text."""

from __future__ import annotations

import base64
import re

import pytest

from mousetrap.display.cells import BAR_CHARS, BAR_WIDTH, Bar, Code, Named


@pytest.mark.parametrize(
    ("part", "whole", "chars", "width"),
    [(0, 9, 0, 0), (1, 1000, 1, 1), (5, 10, 5, 40), (9, 9, 10, 80), (0, 0, 0, 0), (3, 2, 10, 80)],
)
def test_bar_is_as_long_as_the_share(part, whole, chars, width):
    """What is not 0 can be seen, nothing is longer than the whole, and a picture has words."""
    bar = Bar(part, whole)
    [data] = re.findall(r"base64,([^\"]+)", bar.html())

    assert (len(bar.text()), BAR_CHARS, BAR_WIDTH) == (chars, 10, 80)
    assert f'width="{width}.0"' in base64.b64decode(data).decode()
    assert f'alt="{part:,} of {whole:,}"' in bar.html()


def test_cells_escape_what_they_show():
    """Markup is text, and control characters are seen."""
    for cell in (Code("<b>\x1b"), Named("<b>\x1b", "<b>\x1b", "<b>\x1b")):
        assert "&lt;b&gt;\\x1b" in cell.html()
        assert "<b>\x1b" not in cell.html()
        assert "\x1b" not in cell.text()


def test_named_text_stands_on_one_line_in_a_terminal():
    """With a colon between name and words where there are both, and the details in brackets."""
    assert Named("KeyError", "no …", "a 2").text() == "KeyError: no … (a 2)"
    assert Named("", "no …").text() == "no …"
    assert Named("KeyError", "").text() == "KeyError"
    assert "<b>KeyError</b>: no …" in Named("KeyError", "no …").html()
