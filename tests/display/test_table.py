"""Tables: text in a terminal, HTML in a notebook, a DataFrame; foreign text is shown safely."""

from __future__ import annotations

import re
import sys

import pytest

from mousetrap.display.cells import Bar
from mousetrap.display.formats import size
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
    assert repr(TABLE) == "two rows\nname      n    x\na     1,000  0.5\nb         –    2"
    html = TABLE._repr_html_()
    assert html.count("<tr") == 3
    assert "two rows" in html


def test_numbers_stand_on_the_right_with_the_units_in_the_head_or_the_cell():
    """So do the columns that are named; text, truth values and other cells stand on the left."""
    table = Table(
        ("id", "is open", "wait", "size", "tries", "share"),
        [("12345678", True, 0.5, 4096, "1 to 3", 3), ("x", False, None, 7, "2", 1)],
        units={"wait": "s"}, right=("tries",),
        shows={"size": size, "share": lambda part: Bar(part, 4)},
    )  # fmt: skip
    sides = re.findall(r"<th scope='col' style='text-align:(\w+)", table._repr_html_())

    assert sides == ["left", "left", "right", "right", "right", "left"]
    assert repr(table).splitlines() == [
        "id        is open  wait, s    size   tries  share",
        "12345678  True         0.5  4.1 kB  1 to 3  ████████",
        "x         False          –     7 B       2  ██",
    ]
    assert table[0]["size"] == 4096


def test_a_wide_table_is_scrolled_also_by_keyboard():
    """Its region can be focused and is named; the title is the caption."""
    html = Table(("a",), [(1,)], "it's 'wide'")._repr_html_()

    assert "<div style='overflow-x:auto' tabindex='0' role='region' aria-label='it&#x27;s " in html
    assert "it&#x27;s &#x27;wide&#x27;</caption>" in html


def test_table_shows_a_page_and_says_which():
    """The rows before and after it are counted, and the caller says how to see them."""
    rows = repr(Table(("n",), [(n,) for n in range(50)], page=3, more="page=…")).splitlines()

    assert rows[1:] == [*(str(n) for n in range(40, 50)), "rows 41 to 50 of 50; more: page=…"]


def test_columns_can_be_left_out():
    """The others keep what was said of them."""
    table = Table(("a", "b"), [(1, 2.0)], units={"b": "s"}, shows={"a": str}).without("a")

    assert (repr(table), table[0]) == ("b, s\n   2", {"b": 2.0})


def test_table_shows_twenty_rows_and_counts_the_rest():
    """Ten thousand rows do not fill a notebook."""
    long = Table(("n",), [(n,) for n in range(10_000)])

    assert repr(long).endswith("19\n9,980 more: .to_pandas()")
    assert long._repr_html_().count("<tr") == 21
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


def test_a_table_without_names_of_columns_has_no_line_of_headings():
    """The first cell of a row is its heading."""
    table = Table(("", ""), [("host", "far"), ("port", 5672)], "settings")

    assert repr(table).splitlines() == ["settings", "host  far", "port  5,672"]
    assert "<thead>" not in table._repr_html_()
    assert "<th scope='row' style='text-align:left;white-space:nowrap'>host</th>" in (
        table._repr_html_()
    )
