"""What a notebook shows, in a real JupyterLab: legible by rule, and as in the committed pictures.

The pictures are in ``tests/pictures``; ``python tests/make_pictures.py surfaces`` draws them anew.
Text has a font that comes with matplotlib, so that another machine draws the same.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.jupyterlab import SCREENSHOTS
from support.shown_surfaces import PICTURES, THEMES, WIDTHS, Shown, shown_surfaces
from support.surfaces import surfaces

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

LARGEST = 100_000  # bytes of a picture in a notebook
DIFFERENT = 48  # of 255, in one colour of a pixel; smoothing of letters differs by less
SHARE = 0.01  # of the pixels may be different


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """Every surface, in both themes and in both widths, as JupyterLab draws it."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with shown_surfaces(tmp_path_factory.mktemp("surfaces"), SCREENSHOTS) as found:
        return {each.name: each for each in found}


BUNDLES = surfaces()
NAMES = [f"{name}-{theme}-{width}" for name in BUNDLES for theme in THEMES for width in WIDTHS]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_shown_is_legible(shown, name):
    """The rules are in ``tests/support/page_rules.js``."""
    assert shown[name].broken_rules == []


@pytest.mark.parametrize("name", NAMES)
def test_what_is_shown_is_as_in_its_picture(shown, name):
    """If a change is wanted: look at the picture, then draw it anew, see above."""
    difference = compare(PICTURES / f"{name}.png", shown[name])

    assert difference == "", f"{difference}; now: {shown[name].file}"


@pytest.mark.parametrize("name", BUNDLES)
def test_what_is_scrolled_is_reached_by_keyboard(name):
    """By the source: JupyterLab removes the attribute from a notebook that it does not trust."""
    scrolled = re.findall(r"<[^>]*overflow(?:-x)?: ?(?:auto|scroll)[^>]*>", html_of(name))

    assert [each for each in scrolled if not re.search(r"tabindex=['\"]0", each)] == []


@pytest.mark.parametrize("name", BUNDLES)
def test_what_a_notebook_keeps_is_small(name):
    data = BUNDLES[name]
    sizes = {mime: len(text) for mime, text in data.items() if mime != "text/plain"}

    assert all(size <= LARGEST for size in sizes.values()), sizes


def html_of(name: str) -> str:
    return BUNDLES[name].get("text/html", "")


def compare(expected: Path, shown: Shown) -> str:
    """Return how the picture *shown* differs from the file *expected*; "" if it does not."""
    if not expected.exists():
        return f"there is no {expected}"
    pixels, before = (np.asarray(Image.open(file).convert("RGB"), dtype=int)
                      for file in (shown.file, expected))  # fmt: skip
    if pixels.shape != before.shape:
        return f"it has {pixels.shape[1::-1]} pixels, not {before.shape[1::-1]}"
    share = (np.abs(pixels - before).max(axis=2) > DIFFERENT).mean()
    return f"{share:.1%} of its pixels differ" if share > SHARE else ""


def test_a_changed_picture_is_seen(tmp_path):
    """The comparison that all others rely on: same, moved by three pixels, another size."""
    picture = np.full((40, 200, 3), 255, dtype=np.uint8)
    picture[10:30, 20:180:4] = 0
    files = {}
    for name, pixels in {
        "same": picture, "moved": np.roll(picture, 2, axis=1), "wide": picture[:, :-1],
    }.items():  # fmt: skip
        files[name] = tmp_path / f"{name}.png"
        Image.fromarray(pixels).save(files[name])

    found = {name: compare(files["same"], Shown(name, file, [])) for name, file in files.items()}

    assert found["same"] == ""
    assert "of its pixels differ" in found["moved"]
    assert found["wide"] == "it has (199, 40) pixels, not (200, 40)"
