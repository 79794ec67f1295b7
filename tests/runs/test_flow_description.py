"""`mousetrap.describe`: a flow in a notebook."""

from __future__ import annotations

import base64
import re
from xml.etree import ElementTree

from support import describable

import mousetrap

SVG = "{http://www.w3.org/2000/svg}"


def test_a_notebook_shows_a_picture_and_a_table():
    """The picture has each queue, stage and exchange, and no counts; the table has the types."""
    shown = mousetrap.describe(describable)._repr_mimebundle_()

    [data] = re.findall(r'src="data:image/svg\+xml;base64,(.*?)"', shown["text/html"])
    picture = ElementTree.fromstring(base64.b64decode(data))
    texts = {"".join(each.itertext()) for each in picture.iter(f"{SVG}text")}
    names = {"raw", "parse", "visits", "score", "orders", "alarms", "company", "audit", "archive"}
    assert names <= texts
    assert not any("waiting" in each or "done" in each or "unrouted" in each for each in texts)
    assert "<td style='text-align:left'>Score | Send[Visit]</td>" in shown["text/html"]
    assert shown["text/plain"].startswith("◇ company")


def test_a_single_stage_can_be_described():
    """As its text, without a broker."""
    assert repr(mousetrap.describe(describable.repair)).startswith("○ errors  entry\n■ repair")
