"""Whatever comes from a message, an exception or a name is shown, and never obeyed.

Each payload goes through everything of ours that shows something. Nothing here needs a broker.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import re
from collections import Counter
from html.parser import HTMLParser
from urllib.parse import quote, quote_plus
from xml.etree import ElementTree

import nbformat
import pytest
from support.hostile_text import HARMLESS, PASSWORD, PAYLOADS, bundle, bundles, hostile_view, shown

from mousetrap.display.safe_text import safe
from mousetrap.notebook.panel import MAX_SIZE, Panel
from mousetrap.settings import MASK

UNSEEN = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\u200e\u200f\ufffe\uffff]"
)
SURROGATE = re.compile("[\ud800-\udfff]")
ELEMENTS = {"div", "span", "b", "br", "p", "pre", "table", "caption", "thead", "tbody", "tr", "th",
            "td", "img", "code"}  # fmt: skip
ATTRIBUTES = {"class", "style", "alt", "src", "width", "height", "decoding",
              "scope", "tabindex", "title", "role", "aria-label"}  # fmt: skip

each_payload = pytest.mark.parametrize("text", PAYLOADS, ids=range(len(PAYLOADS)))


class Parsed(HTMLParser):
    """The elements of some HTML, with the names of their attributes, and what acts among them."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements = Counter()
        self.first = {}
        self.acting = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.first = self.first or dict(attrs)
        self.elements[tag, *sorted(name for name, _ in attrs)] += 1
        self.acting += [value for name, value in attrs if name in ("src", "style", "class")]

    def handle_comment(self, _):
        self.elements["no element"] += 1

    handle_decl = handle_pi = unknown_decl = handle_comment


@pytest.fixture(autouse=True)
def _no_broker(monkeypatch):
    monkeypatch.setattr("mousetrap.job_queue.depths", lambda *_, **__: [])


harmless = functools.cache(lambda: bundles(HARMLESS))


@each_payload
def test_text_is_inert_wherever_it_is_shown(text):
    """The same elements as for harmless text, none of them acts, and no control byte is left."""
    hostile = bundles(text)

    for name, shows in hostile.items():
        for kind, said in shows.items():
            assert not UNSEEN.search(said), (name, kind)
            assert not SURROGATE.search(said), (name, kind)
        if (html := shows.get("text/html")) is not None:
            assert_inert(html, harmless()[name]["text/html"], name)
        if (svg := shows.get("image/svg+xml")) is not None:
            assert tags(svg) == tags(harmless()[name]["image/svg+xml"]), name


def assert_inert(html: str, expected: str, name: str) -> None:
    ours, theirs = Parsed(expected), Parsed(html)
    assert "mathjax_ignore" in theirs.first["class"], name  # between dollar signs is no formula
    for element, *attributes in theirs.elements:
        assert element in ELEMENTS, (name, element)
        assert set(attributes) <= ATTRIBUTES, (name, attributes)
    if name not in ("panel", "run"):  # whose picture is left out where it would be too large
        assert theirs.elements == ours.elements, name
    for value in theirs.acting:
        assert value in ours.acting or re.fullmatch(
            r"data:image/(?:svg\+xml|png);base64,[\w+/=]+|[a-z0-9_ .;:%#\-]+", value
        ), (name, value)


def tags(svg: str) -> list[tuple[str, tuple[str, ...]]]:
    """The elements of a picture, which must be well-formed XML."""
    return [(each.tag, tuple(each.attrib)) for each in ElementTree.fromstring(svg).iter()]


@each_payload
def test_panel_is_bounded_whatever_it_shows(text):
    """At most sixty thousand bytes, with nine runs of two hundred stages each."""
    view = hostile_view(text)
    wide = dataclasses.replace(view, stages=view.stages * 100)

    drawn = Panel().render([wide] * 9, end="")

    assert sum(len(each.encode()) for each in drawn.values()) <= MAX_SIZE


def page(exporter, text: str) -> Parsed:
    """What nbconvert makes of a saved notebook with everything in it as outputs."""
    values = shown(text).values()
    outputs = [nbformat.v4.new_output("display_data", bundle(value)) for value in values]
    outputs += [
        nbformat.v4.new_output("error", ename="X", evalue=str(e), traceback=str(e).splitlines())
        for e in values
        if isinstance(e, Exception)
    ]
    cell = nbformat.v4.new_code_cell("all of it", outputs=outputs)
    return Parsed(exporter.from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))[0])


@pytest.fixture(scope="module")
def exporter():
    return pytest.importorskip("nbconvert").HTMLExporter(template_name="basic")


@each_payload
def test_text_is_inert_in_the_html_of_a_saved_notebook(exporter, text):
    """nbconvert's page has no element that it has not for harmless text."""
    made, expected = page(exporter, text), page(exporter, HARMLESS)

    assert set(made.elements) <= set(expected.elements) | {("img", "alt", "src")}
    assert [value for value in made.acting if "script" in value or "evil" in value] == []


def test_no_password_is_shown():
    """Not plain, not URL-encoded, not in base64: the settings of everything shown have one."""
    written = [PASSWORD, quote(PASSWORD), quote(PASSWORD, safe=""), quote_plus(PASSWORD),
               base64.b64encode(PASSWORD.encode()).decode().rstrip("=")]  # fmt: skip

    told = "\n".join(said for shows in bundles(HARMLESS).values() for said in shows.values())

    assert MASK in told  # where there is an address
    assert [each for each in written if each in told] == []


def test_there_are_fifty_payloads_and_each_is_one():
    """Enough of them, no two alike; `safe` leaves none of the dangerous ones as it is."""
    assert len(set(PAYLOADS)) == len(PAYLOADS) >= 50
    assert not any(UNSEEN.search(safe(text)) for text in PAYLOADS)
