"""`mousetrap.check.pictures`: which pictures of an executed copy the page gets."""

from __future__ import annotations

import base64

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from support.grids import PNG, write_copy

from mousetrap.check import pictures
from mousetrap.check.pictures import PictureCollector


def test_collector_takes_the_last_pictures_and_counts_the_rest(tmp_path):
    """A notebook with a hundred plots does not make the page too large."""
    copy = write_copy(tmp_path / "a.ipynb", *[PNG + bytes([n]) for n in range(10)])
    collector = PictureCollector()

    taken = collector.pictures_of(copy)

    assert [base64.b64decode(each.partition(",")[2])[-1] for each in taken] == [6, 7, 8, 9]
    assert collector.left_out == 6


def test_collector_has_a_maximum_size(tmp_path, monkeypatch):
    """Neither one picture nor all of them together exceed the limits."""
    monkeypatch.setattr(pictures, "MAX_PAGE_BYTES", 2 * len(PNG))
    copy = write_copy(tmp_path / "a.ipynb", PNG, PNG + bytes(pictures.MAX_PICTURE_BYTES))
    collector = PictureCollector()

    assert [len(collector.pictures_of(copy)) for _ in range(3)] == [1, 1, 0]
    assert collector.left_out == 4


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("image/png", "no base64!"),
        ("image/png", base64.b64encode(b"<script>").decode()),
        ("image/png", '"><script>alert(1)</script>'),
        ("image/jpeg", base64.b64encode(PNG).decode()),
        ("text/html", "<img src='data:image/png;base64,x'>"),
        ("image/webp", base64.b64encode(PNG).decode()),
    ],
)
def test_collector_takes_only_pictures(tmp_path, kind, data):
    """The data must begin with the signature of its type."""
    copy = tmp_path / "a.ipynb"
    output = new_output("display_data", data={kind: data})
    nbformat.write(new_notebook(cells=[new_code_cell("x", outputs=[output])]), copy)

    assert PictureCollector().pictures_of(copy) == []


def test_collector_takes_svg(tmp_path):
    """An SVG in an <img> runs no script and loads nothing."""
    copy = tmp_path / "a.ipynb"
    svg = "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    output = new_output("display_data", data={"image/svg+xml": svg})
    nbformat.write(new_notebook(cells=[new_code_cell("x", outputs=[output])]), copy)

    [picture] = PictureCollector().pictures_of(copy)

    assert picture.startswith("data:image/svg+xml;base64,")


def test_collector_ignores_a_copy_that_was_deleted(tmp_path):
    """The report is written without its pictures."""
    assert PictureCollector().pictures_of(tmp_path / "gone.ipynb") == []
