"""Text from outside: characters that could act are escaped, and all others stay."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis.strategies import characters, text

from mousetrap.display.safe_text import SafeText, safe, safe_block, safe_lines

any_text = text(characters(codec=None))  # lone surrogates, too


def test_safe_escapes_control_characters_and_cuts():
    """Control characters are shown as escape sequences, line ends as a sign; a long text is cut."""
    assert safe("a\nb\x00\ud800", 100) == "a ⏎ b\\x00\\ud800"
    assert safe("abcdef", 4) == "abc…"
    assert safe("abcd", 4) == "abcd"
    assert safe("one\r\ntwo\n\nthree") == "one ⏎ two ⏎  ⏎ three"


@pytest.mark.parametrize("character", ["\x1b", "\x9b", "\x7f", "\u202e", "\u2066", "\u2028",
                                       "\ufffe", "\udcff", "\r"])  # fmt: skip
@pytest.mark.parametrize("function", [safe, safe_block])
def test_safe_text_escapes_what_acts(function, character):
    """Terminal codes, bidirectional controls, line separators, surrogates and noncharacters."""
    escaped = function(f"a{character}b")

    assert escaped == f"a\\{'x' if ord(character) < 256 else 'u'}{ord(character):0>2x}b"


@given(any_text)
def test_safe_leaves_no_control_character_and_changes_nothing_else(foreign):
    """The result is one line of valid UTF-8; text without control characters stays as it is."""
    shown = safe(foreign)

    assert not {unicodedata.category(each) for each in shown} & {"Cc", "Cs", "Zl", "Zp"}
    assert safe(shown) == shown
    if all(each.isalnum() for each in foreign):
        assert shown == foreign


@given(any_text)
def test_safe_block_keeps_the_ends_of_lines_and_tabs(foreign):
    """Line by line and tab by tab it is the same as `safe`."""
    lines = [[safe(part) for part in line.split("\t")] for line in foreign.split("\n")]

    assert safe_block(foreign) == "\n".join("\t".join(parts) for parts in lines)


def test_safe_lines_keeps_lines():
    """A traceback stays a traceback; any kind of line end becomes a newline."""
    assert safe_lines("one\r\ntwo\x1b\nthree\n") == "one\ntwo\\x1b\nthree"


def test_safe_text_shows_itself_by_lines_and_unquoted():
    """A notebook shows the lines of a traceback, with its markup escaped."""
    shown = SafeText("<b>\x1b\n$x$")

    assert repr(shown) == "<b>\\x1b\n$x$"
    assert shown._repr_html_().endswith(">&lt;b&gt;\\x1b\n$x$</pre>")
    assert "tex2jax_ignore" in shown._repr_html_()
