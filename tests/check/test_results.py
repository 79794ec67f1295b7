"""The report on a grid: complete in itself, and nothing that a notebook wrote acts in it."""

from __future__ import annotations

import base64
import json
import re
import stat
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
from markupsafe import Markup
from nbformat.v4 import new_code_cell, new_notebook, new_output
from support.grids import HOSTILE, PNG, make_grid, write_copy

from mousetrap.check import CheckResult, GridResult, PointResult, pictures, read_results
from mousetrap.check.page import _environment, notebook_view
from mousetrap.check.pictures import PictureCollector
from mousetrap.check.report import write_report
from mousetrap.check.safe_text import safe_text
from mousetrap.errors import CheckError

UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufffe\uffff]")


@pytest.fixture
def folder(tmp_path):
    """The folder of a report on two points, one of which failed; everything in it is harmless."""
    write_report(make_grid(tmp_path))
    return tmp_path


class Page(HTMLParser):
    """What a browser would make of a page: elements, their attributes, and the text."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.words, self.open = [], [], []
        self.feed(text)
        self.close()
        assert self.open == [], "elements that are not closed"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def tags(self):
        return [tag for tag, _ in self.elements]

    @property
    def text(self):
        return "".join(self.words)

    def values(self, *names):
        return [attrs[name] for _, attrs in self.elements for name in attrs if name in names]


# --- the page ------------------------------------------------------------------------------------


def test_page_needs_no_script_and_nothing_from_elsewhere(folder):
    """Whoever opens it, where ever, sees all of it; and it forbids itself the rest."""
    page = Page((folder / "index.html").read_text())

    assert not {"script", "link", "iframe", "object", "base", "form"} & set(page.tags)
    assert all(re.match(r"data:image/|#|\./|results\.json$|junit\.xml$", value)
               for value in page.values("src", "href"))  # fmt: skip
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in page.values("content")
    assert not re.search(r"url\(|@import|https?:", (folder / "index.html").read_text())


def test_page_says_what_came_of_each_point(folder):
    """How many passed, what varies, the figures, and for a failure its cell and its error."""
    text = Page((folder / "index.html").read_text()).text

    assert "1 of 2 points passed" in text
    assert "✓ passed" in text
    assert "✗ failed" in text
    assert "cell 4, In [3]: assert lost == 0" in text
    assert "AssertionError: lost 5" in text
    assert "wait p50" in text
    for name in ("prefetch", "done", "dead", "lost", "seconds", "p50", "p99", "took", "plots"):
        assert name in text


def test_page_links_to_the_executed_copies_and_the_data(folder):
    """By relative addresses, quoted as they must be, so that the folder can be moved."""
    links = Page((folder / "index.html").read_text()).values("href")

    assert "./1-prefetch%3D1.ipynb" in links
    assert {"results.json", "junit.xml", "#point-2"} <= set(links)
    assert "./2-prefetch%3D10.ipynb" not in links  # there is none


def test_page_shows_the_pictures_of_a_copy(folder):
    """They are in the page itself."""
    pictures = Page((folder / "index.html").read_text()).values("src")

    assert pictures == [f"data:image/png;base64,{base64.b64encode(PNG).decode()}"]


def test_page_says_why_a_grid_ended(tmp_path):
    """Somebody who comes later sees that it is not whole, and where it stopped."""
    grid = make_grid(tmp_path, ended="interrupted")
    check = CheckResult(Path("a.ipynb"), tmp_path / "3.ipynb", error="interrupted")
    not_run = PointResult(3, "prefetch=100", {"prefetch": 100}, "x-3", False, check)
    write_report(replace(grid, points=(*grid.points, not_run)))
    text = Page((tmp_path / "index.html").read_text()).text

    assert "1 of 3 points passed, 1 not run" in text
    assert "– not run" in text


# --- hostile text --------------------------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_inert_in_the_page(tmp_path, text):
    """Wherever it comes from, it is text: the elements are those of a harmless page."""
    harmless, hostile = tmp_path / "harmless", tmp_path / "hostile"
    for folder, told in ((harmless, "x"), (hostile, text)):
        folder.mkdir()
        write_report(make_grid(folder, text=told))
    expected, page = (Page((each / "index.html").read_text()) for each in (harmless, hostile))

    acting = ("href", "src", "style", "class")
    assert page.tags == expected.tags
    assert [set(each) for _, each in page.elements] == [set(each) for _, each in expected.elements]
    assert page.values(*acting) == expected.values(*acting)
    assert safe_text(text) in page.text
    assert safe_text(text) in Page(notebook_view(make_grid(hostile, text=text))).text


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_breaks_no_junit(tmp_path, text):
    """XML knows neither control characters nor halves of others: they are spelled out."""
    write_report(make_grid(tmp_path, text=text))
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()[0]

    assert [case.get("name") for case in suite] == [safe_text(text), safe_text(text)]
    assert safe_text(text) in suite[1].find("failure").text
    assert [element.tag for element in suite.iter()] == [
        "testsuite", "testcase", "properties", *["property"] * 9,
        "testcase", "properties", *["property"] * 9, "failure", "system-out",
    ]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_survives_as_data(tmp_path, text):
    """Programs get it as it was."""
    grid = make_grid(tmp_path, text=text)
    write_report(grid)

    assert read_results(tmp_path) == grid


def test_nothing_that_cannot_be_seen_is_left(folder):
    """What reorders text, moves a cursor or ends a line is spelled out, in any file of a report."""
    for text in HOSTILE:
        write_report(make_grid(folder, text=text))
        for name in ("index.html", "junit.xml", "results.json"):
            assert not UNSEEN.search((folder / name).read_text())


def test_passwords_in_addresses_are_masked(tmp_path):
    """In parameters, records, errors and reasons alike, in every file."""
    write_report(make_grid(tmp_path, text="amqp://me:hunter2@host/"))

    for path in (tmp_path / name for name in ("index.html", "junit.xml", "results.json")):
        assert "hunter2" not in path.read_text()
        assert "amqp://me:********@host/" in path.read_text()
    assert "hunter2" not in notebook_view(make_grid(tmp_path, text="amqp://me:hunter2@host/"))


ODD = [float("nan"), float("inf"), -1, 10**400, 0, "", None, [], {}, True]


@pytest.mark.parametrize("value", ODD, ids=range(len(ODD)))
def test_odd_figures_break_nothing(tmp_path, value):
    """A notebook may display any record it likes."""
    summary = dict.fromkeys(("done", "dead", "lost", "seconds", "sent"), value)
    for odd in (summary | {"latency": {"p50": value, "p99": value}}, summary | {"latency": value}):
        write_report(make_grid(tmp_path, summary=odd | {"stages": {"fetch": value}}))

        Page((tmp_path / "index.html").read_text())
        ElementTree.parse(tmp_path / "junit.xml")
        assert len(read_results(tmp_path)) == 2


# --- the files -----------------------------------------------------------------------------------


def test_report_files_are_whole_and_for_their_owner_only(folder):
    """Like the executed copies they may hold what others should not read; no half is left."""
    names = {"index.html", "results.json", "junit.xml"}

    assert {path.name for path in folder.iterdir()} == names | {"1-prefetch=1.ipynb"}
    assert {stat.S_IMODE((folder / name).stat().st_mode) for name in names} == {0o600}


def test_report_says_when_it_cannot_be_written(tmp_path):
    """The folder went away while the grid ran."""
    with pytest.raises(CheckError, match="report cannot be written"):
        write_report(make_grid(tmp_path / "gone"))


def test_junit_counts_what_did_not_pass(folder):
    """A cell that raised is a failure; the suite has the sums that CI shows."""
    suite = ElementTree.parse(folder / "junit.xml").getroot()[0]

    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "0")
    assert suite[1].find("failure").get("message") == "AssertionError: lost 5"
    assert suite[1].get("classname") == "notebooks.check_it"


def test_junit_has_an_error_for_what_did_not_run(tmp_path):
    """Skipped would be green."""
    not_run = CheckResult(Path("a.ipynb"), tmp_path / "1.ipynb", error="interrupted")
    point = PointResult(1, "a", {}, "x-1", False, not_run)
    write_report(GridResult((), (point,), tmp_path, "2026-11-25T07:00:00+00:00", 1.0, 1))
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()[0]

    assert suite.get("errors") == "1"
    assert suite[0].find("error").get("message") == "interrupted"


def test_results_hold_no_number_that_json_does_not_know(tmp_path):
    """NaN is not JSON; what others read has null there."""
    write_report(make_grid(tmp_path, summary={"seconds": float("nan")}))
    told = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)

    assert told["points"][0]["summary"] == {"seconds": None}


# --- its parts -----------------------------------------------------------------------------------


def test_page_escapes_a_value_that_is_markup(tmp_path):
    """Jinja2 does not escape Markup; a parameter or a figure of that type is text all the same."""
    markup = Markup("<b>bold</b>")
    grid = make_grid(tmp_path, summary={"done": markup, markup: markup, "stages": {markup: 1}})
    checks = [replace(point.check, parameters={markup: markup}) for point in grid]
    points = [replace(point, varying={"prefetch": markup}, check=check, name=markup)
              for point, check in zip(grid, checks, strict=True)]  # fmt: skip

    write_report(replace(grid, points=tuple(points)))

    text = (tmp_path / "index.html").read_text()
    assert markup not in text
    assert str(markup) in Page(text).text


def test_results_show_themselves_as_a_table_in_a_notebook(tmp_path):
    """The renderer is registered as soon as `mousetrap.check` is imported."""
    grid = make_grid(tmp_path)

    assert grid._repr_html_() == notebook_view(grid)
    assert "1 of 2 points passed" in Page(grid._repr_html_()).text


def test_page_says_that_jinja2_is_missing(tmp_path, monkeypatch):
    """The error names the extra that brings it."""
    monkeypatch.setitem(sys.modules, "jinja2", None)
    _environment.cache_clear()

    with pytest.raises(CheckError, match=r"Jinja2 .*pip install 'mousetrap-mq\[notebook\]'"):
        notebook_view(make_grid(tmp_path))


def test_safe_text_cuts_and_masks():
    """What is too long ends in an ellipsis, and no cut leaves half a password."""
    assert safe_text("abcdef", 4) == "abc…"
    assert safe_text("amqp://me:hunter2@host", 14) == "amqp://me:***…"


def test_album_takes_the_last_pictures_and_counts_the_rest(tmp_path):
    """A notebook with a hundred plots does not make a page that no browser opens."""
    copy = write_copy(tmp_path / "a.ipynb", *[PNG + bytes([n]) for n in range(10)])
    album = PictureCollector()

    taken = album.pictures_of(copy)

    assert [base64.b64decode(each.partition(",")[2])[-1] for each in taken] == [6, 7, 8, 9]
    assert album.left_out == 6


def test_album_has_a_size(tmp_path, monkeypatch):
    """Neither one picture nor all of them together grow beyond what was agreed."""
    monkeypatch.setattr(pictures, "MAX_PAGE_BYTES", 2 * len(PNG))
    copy = write_copy(tmp_path / "a.ipynb", PNG, PNG + bytes(pictures.MAX_PICTURE_BYTES))
    album = PictureCollector()

    assert [len(album.pictures_of(copy)) for _ in range(3)] == [1, 1, 0]
    assert album.left_out == 4


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
def test_album_takes_nothing_that_is_no_picture(tmp_path, kind, data):
    """What a cell calls a picture has to begin like one."""
    copy = tmp_path / "a.ipynb"
    output = new_output("display_data", data={kind: data})
    nbformat.write(new_notebook(cells=[new_code_cell("x", outputs=[output])]), copy)

    assert PictureCollector().pictures_of(copy) == []


def test_album_takes_drawings(tmp_path):
    """An SVG in an <img> runs no script and loads nothing, so it may come along."""
    copy = tmp_path / "a.ipynb"
    svg = "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    output = new_output("display_data", data={"image/svg+xml": svg})
    nbformat.write(new_notebook(cells=[new_code_cell("x", outputs=[output])]), copy)

    [picture] = PictureCollector().pictures_of(copy)

    assert picture.startswith("data:image/svg+xml;base64,")


def test_album_does_without_a_copy_that_is_gone(tmp_path):
    """A report is better than no report."""
    assert PictureCollector().pictures_of(tmp_path / "gone.ipynb") == []
