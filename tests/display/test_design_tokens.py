"""Each colour is legible on the grounds that it is drawn on (WCAG 2.2, contrast ratio)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import mousetrap
from mousetrap.display import design_tokens as tokens
from mousetrap.display.design_tokens import DARK_GROUND, LIGHT_GROUND, Pair

PAIRS = {name: value for name, value in vars(tokens).items() if isinstance(value, Pair)}
NO_TEXT = {name for name in PAIRS if name.endswith("GROUND")} | {"WASH", "LINE"}
GROUNDS = {name: PAIRS[name] for name in sorted(NO_TEXT - {"LINE"})}
PAIRS = {name: pair for name, pair in PAIRS.items() if name not in NO_TEXT}
PAIRS |= {f"SERIES[{n}]": pair for n, pair in enumerate(tokens.SERIES)}
COLOUR = re.compile(r"[\"':; ](#(?:[0-9a-fA-F]{3}){1,2})\b(?![\w-])")
MARKS = {name: value for name, value in vars(tokens).items() if name.endswith("_MARK")}
MARKS |= {f"SERIES_MARKS[{n}]": mark for n, mark in enumerate(tokens.SERIES_MARKS)}


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours, 1 to 21."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(color: str) -> float:
    parts = [int(color[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_the_contrast_of_known_colours():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("name", PAIRS)
def test_text_on_our_own_ground_is_legible(name):
    assert contrast(PAIRS[name].light, LIGHT_GROUND) >= 4.5
    assert contrast(PAIRS[name].dark, DARK_GROUND) >= 4.5


@pytest.mark.parametrize("name", MARKS)
def test_a_mark_is_seen_on_either_ground(name):
    """4, more than the 3 that a mark needs: some marks stand beside words of the same colour."""
    assert contrast(MARKS[name], LIGHT_GROUND) >= 4
    assert contrast(MARKS[name], DARK_GROUND) >= 4


WORDS = ("TEXT", "MUTED", "ACCENT", "RETRIED", "DEAD")


@pytest.mark.parametrize("name", WORDS)
@pytest.mark.parametrize("ground", GROUNDS)
def test_text_is_legible_on_each_ground_of_our_own(ground, name):
    """In boxes of the diagram, and in rows and bars of the page."""
    assert contrast(PAIRS[name].light, GROUNDS[ground].light) >= 4.5
    assert contrast(PAIRS[name].dark, GROUNDS[ground].dark) >= 4.5


@pytest.mark.parametrize("name", ["OK", "DEAD", "MUTED"])
def test_a_white_sign_is_legible_on_a_filled_square(name):
    assert contrast(LIGHT_GROUND, PAIRS[name].light) >= 4.5


def test_there_are_tokens():
    assert (len(PAIRS), len(MARKS), len(GROUNDS)) == (10, 11, 6)


def test_no_colour_stands_elsewhere():
    """In no module and style sheet of the package: what is shown takes the tokens."""
    package = Path(mousetrap.__file__).parent
    files = [each for kind in ("*.py", "*.css", "*.j2") for each in package.rglob(kind)]
    found = {
        str(file.relative_to(package)): literals
        for file in files
        if (literals := COLOUR.findall(file.read_text(encoding="utf-8")))
    }

    assert set(found) == {"display/design_tokens.py"}, found
