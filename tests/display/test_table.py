"""Tables: text in a terminal, HTML in a notebook, a DataFrame; foreign text is shown safely."""

from __future__ import annotations

import sys

import pytest

from mousetrap.display.table import Table

TABLE = Table(("name", "n", "x"), [("a", 1000, 0.5), ("b", None, 2.0)], "two rows")


def test_table_is_a_sequence_of_mappings():
    """Length, rows by number, slices, iteration."""
    assert len(TABLE) == 2
    assert TABLE[0] == {"name": "a", "n": 1000, "x": 0.5}
    assert [row["name"] for row in TABLE] == ["a", "b"]
    assert [row["name"] for row in TABLE[1:]] == ["b"]


def test_table_shows_itself_as_text_and_html():
    """Aligned columns in a terminal, a table in a notebook."""
    assert repr(TABLE) == "two rows\nname  n      x\na     1,000  0.5\nb     –      2"
    html = TABLE._repr_html_()
    assert html.count("<tr>") == 3
    assert "two rows" in html


def test_table_shows_twenty_rows_and_counts_the_rest():
    """Ten thousand rows do not fill a notebook."""
    long = Table(("n",), [(n,) for n in range(10_000)])

    assert repr(long).endswith("19\n... and 9,980 more")
    assert long._repr_html_().count("<tr>") == 21
    assert len(long) == 10_000


def test_table_escapes_markup_and_control_characters():
    """Markup, formulas, terminal codes and reversed text are shown, not carried out."""
    hostile = Table(("<b>",), [("<script>alert(1)</script>",), ("$x$ \x1b[31m \u202e",)], "<i>")

    html, text = hostile._repr_html_(), repr(hostile)

    for tag in ("<script>", "<b>", "<i>", "\x1b", "\u202e"):
        assert tag not in html
    assert "tex2jax_ignore" in html
    assert "\\x1b[31m \\u202e" in text


def test_table_becomes_a_data_frame():
    """With pandas, all rows and all columns; without, a sentence that says what to install."""
    pandas = pytest.importorskip("pandas")

    frame = TABLE.to_pandas()

    assert isinstance(frame, pandas.DataFrame)
    assert frame.shape == (2, 3)


def test_table_says_that_pandas_is_missing(monkeypatch):
    """The error names the package."""
    monkeypatch.setitem(sys.modules, "pandas", None)

    with pytest.raises(ImportError, match="pip install pandas"):
        TABLE.to_pandas()
