"""The style sheet of the page: the rules in ``page.css``, with the colours of all that is shown."""

from __future__ import annotations

from pathlib import Path

from mousetrap.display import design_tokens as tokens

_PAIRS = {
    "ink": tokens.TEXT, "soft": tokens.MUTED, "good": tokens.OK, "bad": tokens.DEAD,
    "warn": tokens.RETRIED, "link": tokens.ACCENT, "paper": tokens.GROUND, "wash": tokens.WASH,
    "line": tokens.LINE, "bar": tokens.BAR_GROUND,
}  # fmt: skip
# White signs stand on these, in both themes.
_FILLS = {"on-fill": tokens.LIGHT_GROUND, "good-fill": tokens.OK.light,
          "bad-fill": tokens.DEAD.light, "soft-fill": tokens.MUTED.light}  # fmt: skip


def style_sheet() -> str:
    """Return the CSS of the page, for a light and a dark theme."""
    light = {name: pair.light for name, pair in _PAIRS.items()}
    dark = {name: pair.dark for name, pair in _PAIRS.items()}
    rules = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    return (
        f":root {{ color-scheme: light dark; {_properties(light | _FILLS)} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {_properties(dark)} }} }}\n{rules}"
    )


def _properties(colors: dict[str, str]) -> str:
    return " ".join(f"--{name}: {color};" for name, color in colors.items())
