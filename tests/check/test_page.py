"""The report page: complete in itself, and text from a notebook stays text."""

from __future__ import annotations

import base64
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from markupsafe import Markup
from support.grids import HOSTILE, PNG, make_grid

from mousetrap.check import CheckResult, PointResult, read_results
from mousetrap.check.page import _environment, notebook_view
from mousetrap.check.report import write_report
from mousetrap.check.safe_text import safe_text
from mousetrap.errors import CheckError

INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufffe\uffff]")
ODD = [float("nan"), float("inf"), -1, 10**400, 0, "", None, [], {}, True]


class Page(HTMLParser):
    """A page as a browser parses it: elements, their attributes, and the text."""

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


# --- the page -------------------------------------------------------------------------------------


def test_page_needs_no_script_and_loads_nothing(report_folder):
    """The page is complete in itself, and its policy forbids the rest."""
    page = Page((report_folder / "index.html").read_text())

    assert not {"script", "link", "iframe", "object", "base", "form"} & set(page.tags)
    assert all(re.match(r"data:image/|#|\./|results\.json$|junit\.xml$", value)
               for value in page.values("src", "href"))  # fmt: skip
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in page.values("content")
    assert not re.search(r"url\(|@import|https?:", (report_folder / "index.html").read_text())


def test_page_shows_the_result_of_each_point(report_folder):
    """It has the count, what varies, the figures, and for a failure its cell and error."""
    text = Page((report_folder / "index.html").read_text()).text

    assert "1 of 2 points passed" in text
    assert "✓ passed" in text
    assert "✗ failed" in text
    assert "cell 4, In [3]: assert lost == 0" in text
    assert "AssertionError: lost 5" in text
    assert "wait, half within, s" in text
    for name in (
        "prefetch",
        "done",
        "dead",
        "lost",
        "seconds",
        "half within, s",
        "99 % within, s",
        "took",
        "plots",
    ):
        assert name in text


def test_page_links_to_the_executed_copies_and_the_data(report_folder):
    """The links are relative and escaped, so that the folder can be moved."""
    links = Page((report_folder / "index.html").read_text()).values("href")

    assert "./1-prefetch%3D1.ipynb" in links
    assert {"results.json", "junit.xml", "#point-2"} <= set(links)
    assert "./2-prefetch%3D10.ipynb" not in links  # there is none


def test_page_shows_the_pictures_of_a_copy(report_folder):
    """The pictures are in the page itself."""
    pictures = Page((report_folder / "index.html").read_text()).values("src")

    assert pictures == [f"data:image/png;base64,{base64.b64encode(PNG).decode()}"]


def test_page_shows_points_that_did_not_run(tmp_path):
    """An interrupted grid is not shown as complete."""
    grid = make_grid(tmp_path, ended="interrupted")
    check = CheckResult(Path("a.ipynb"), tmp_path / "3.ipynb", error="interrupted")
    not_run = PointResult(3, "prefetch=100", {"prefetch": 100}, "x-3", False, check)
    write_report(replace(grid, points=(*grid.points, not_run)))
    text = Page((tmp_path / "index.html").read_text()).text

    assert "1 of 3 points passed, 1 not run" in text
    assert "– not run" in text


def test_page_says_that_jinja2_is_missing(tmp_path, monkeypatch):
    """The error names the extra that installs it."""
    monkeypatch.setitem(sys.modules, "jinja2", None)
    _environment.cache_clear()

    with pytest.raises(CheckError, match=r"Jinja2 .*pip install 'mousetrap-mq\[notebook\]'"):
        notebook_view(make_grid(tmp_path))


def test_results_are_shown_as_a_table_in_a_notebook(tmp_path):
    """`mousetrap.check` registers the renderer when it is imported."""
    grid = make_grid(tmp_path)

    assert grid._repr_html_() == notebook_view(grid)
    assert "1 of 2 points passed" in Page(grid._repr_html_()).text


# --- hostile text ---------------------------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_inert_in_the_page(tmp_path, text):
    """From every source it is text: the elements are the same as with harmless text."""
    harmless, hostile = tmp_path / "harmless", tmp_path / "hostile"
    for each, content in ((harmless, "x"), (hostile, text)):
        each.mkdir()
        write_report(make_grid(each, text=content))
    expected, page = (Page((each / "index.html").read_text()) for each in (harmless, hostile))

    acting = ("href", "src", "style", "class")
    assert page.tags == expected.tags
    assert [set(each) for _, each in page.elements] == [set(each) for _, each in expected.elements]
    assert page.values(*acting) == expected.values(*acting)
    assert safe_text(text) in page.text
    assert safe_text(text) in Page(notebook_view(make_grid(hostile, text=text))).text


def test_page_counts_dead_messages_by_kind_of_error(tmp_path):
    """The largest kind is the first; further kinds are counted; text is escaped."""
    reasons = {f"KeyError: 'EU-<b>{n}'": 2 for n in range(3)} | {"Reject: no": 4}
    words = {f"{word}: x": 1 for word in "abcdefghij"}
    write_report(make_grid(tmp_path, summary={"dead": 20, "reasons": reasons | words}))
    text = (tmp_path / "index.html").read_text()

    assert text.index("<b>KeyError</b>: …<br>") < text.index("<b>Reject</b>: no</td>")
    assert "EU-&lt;b&gt;0 2, EU-&lt;b&gt;1 2, EU-&lt;b&gt;2 2" in text
    assert "and 4 further kinds: 4 messages" in text
    assert "<dt>reasons</dt>" not in text


@pytest.mark.parametrize("odd", [["x"], {"x": "y"}, {"x": -1}, {"x": 10**400}, {"x": 1.5}, 3])
def test_page_shows_reasons_of_others_as_they_are(tmp_path, odd):
    """A notebook can display any summary."""
    write_report(make_grid(tmp_path, summary={"reasons": odd}))

    assert "<dt>reasons</dt>" in (tmp_path / "index.html").read_text()


def test_page_escapes_a_value_that_is_markup(tmp_path):
    """Jinja2 does not escape Markup; a parameter or figure of that type is escaped here."""
    markup = Markup("<b>bold</b>")
    grid = make_grid(tmp_path, summary={"done": markup, markup: markup, "stages": {markup: 1}})
    checks = [replace(point.check, parameters={markup: markup}) for point in grid]
    points = [replace(point, varying={"prefetch": markup}, check=check, name=markup)
              for point, check in zip(grid, checks, strict=True)]  # fmt: skip

    write_report(replace(grid, points=tuple(points)))

    text = (tmp_path / "index.html").read_text()
    assert markup not in text
    assert str(markup) in Page(text).text


def test_report_contains_no_invisible_characters(report_folder):
    """Characters that reorder text, move a cursor or end a line are escaped in every file."""
    for text in HOSTILE:
        write_report(make_grid(report_folder, text=text))
        for name in ("index.html", "junit.xml", "results.json"):
            assert not INVISIBLE.search((report_folder / name).read_text())


def test_passwords_in_urls_are_masked(tmp_path):
    """In parameters, summaries, errors and reasons, in every file."""
    write_report(make_grid(tmp_path, text="amqp://me:hunter2@host/"))

    for path in (tmp_path / name for name in ("index.html", "junit.xml", "results.json")):
        assert "hunter2" not in path.read_text()
        assert "amqp://me:********@host/" in path.read_text()
    assert "hunter2" not in notebook_view(make_grid(tmp_path, text="amqp://me:hunter2@host/"))


@pytest.mark.parametrize("value", ODD, ids=range(len(ODD)))
def test_report_accepts_any_value_of_a_figure(tmp_path, value):
    """A notebook can display any summary."""
    summary = dict.fromkeys(("done", "dead", "lost", "seconds", "sent"), value)
    for odd in (summary | {"latency": {"p50": value, "p99": value}}, summary | {"latency": value}):
        write_report(make_grid(tmp_path, summary=odd | {"stages": {"fetch": value}}))

        Page((tmp_path / "index.html").read_text())
        ElementTree.parse(tmp_path / "junit.xml")
        assert len(read_results(tmp_path)) == 2


def test_safe_text_cuts_and_masks():
    """Long text ends in an ellipsis; the password is masked before the text is cut."""
    assert safe_text("abcdef", 4) == "abc…"
    assert safe_text("amqp://me:hunter2@host", 14) == "amqp://me:***…"
