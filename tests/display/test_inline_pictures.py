"""Small pictures in HTML: what their shapes say, and that they never change their size."""

from __future__ import annotations

import base64
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mousetrap.display.inline_pictures import BAR_WIDTH, MIN_PART, part_of_whole, scale_of, seconds

SVG = "{http://www.w3.org/2000/svg}"
rates = st.lists(st.floats(0, 1e6), max_size=70)


def drawn(image: str) -> ElementTree.Element:
    return ElementTree.fromstring(base64.b64decode(re.findall('base64,([^"]+)', image)[0]))


def parts(image: str) -> list[float]:
    """Return the widths of what is done and what is dead."""
    group = drawn(image).find(f"{SVG}g")
    fills = {each.get("fill"): float(each.get("width")) for each in group.iter(f"{SVG}rect")}
    return [width for fill, width in fills.items() if fill.startswith("#")]


@pytest.mark.parametrize(
    ("done", "dead", "whole", "widths"),
    [
        (0, 0, 0, []),
        (0, 0, 10, []),
        (10, 0, 10, [BAR_WIDTH]),
        (5, 5, 10, [BAR_WIDTH / 2, BAR_WIDTH / 2]),
        (1, 1, 1_000_000, [MIN_PART, MIN_PART]),  # one is visible
        (999_999, 1, 1_000_000, [BAR_WIDTH - MIN_PART, MIN_PART]),
    ],
)
def test_bar_is_as_long_as_its_parts(done, dead, whole, widths):
    """Blue for what is done, then red for what is dead; together never longer than the bar."""
    assert parts(part_of_whole(done, dead, whole, "")) == pytest.approx(widths, abs=0.1)


@given(rates)
def test_picture_of_a_minute_is_always_a_minute_wide(values):
    """Whatever there is to show: 60 s are 90 pixels, and no bar leaves the picture."""
    picture = drawn(seconds(values, scale_of(values), "it"))
    path = "".join(each.get("d") for each in picture.iter(f"{SVG}path"))

    assert (picture.get("width"), picture.get("height")) == ("90", "20")
    height, heights = 0.0, [0.0]
    for step in re.findall(r"v(-?[\d.]+)", path):
        height -= float(step)
        heights.append(height)
    assert -0.1 < min(heights) <= max(heights) < 18.1
    assert (max(heights) > 0.9) == any(values[-60:])


@given(rates)
def test_scale_is_a_round_number_that_nothing_exceeds(values):
    """So that it seldom changes while a panel is live."""
    scale = scale_of(values)

    assert scale >= max(values, default=0)
    assert f"{scale:e}"[0] in "125"


def test_alternative_text_is_escaped():
    """What a picture says may be any text."""
    assert 'alt="&quot;&gt;&lt;b&gt;"' in seconds([1], 1, '"><b>')
