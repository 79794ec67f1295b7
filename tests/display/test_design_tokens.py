"""Each colour is legible on the grounds that it is drawn on (WCAG 2.2, contrast ratio)."""

from __future__ import annotations

import pytest

from mousetrap.display import design_tokens as tokens
from mousetrap.display.design_tokens import DARK_GROUND, LIGHT_GROUND, Pair

PAIRS = {name: value for name, value in vars(tokens).items() if isinstance(value, Pair)}
PAIRS |= {f"SERIES[{n}]": pair for n, pair in enumerate(tokens.SERIES)}
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


def test_there_are_tokens():
    assert len(PAIRS) == 10
    assert len(MARKS) == 11
