"""The surfaces of `support.surfaces` in a real JupyterLab: a picture of each, and broken rules."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import nbformat
from nbformat.v4 import new_code_cell, new_notebook, new_output

from mousetrap.display.design_tokens import MIN_FONT
from support.jupyterlab import chromium, jupyter_lab
from support.surfaces import surfaces

PICTURES = Path(__file__).parents[1] / "pictures"
RULES = Path(__file__).with_name("page_rules.js").read_text(encoding="utf-8")
THEMES = ("light", "dark")
WIDTHS = (800, 1300)  # pixels of the window
OUTPUT = ".jp-OutputArea-output"
HEIGHT = 2400  # pixels of the window: the largest output fits into it


@dataclass(frozen=True)
class Shown:
    """A surface as it was drawn in one theme and width."""

    name: str  # "panel-dark-800"
    file: Path  # the picture
    broken_rules: list[str]


@contextmanager
def shown_surfaces(place: Path, pictures: Path) -> Iterator[list[Shown]]:
    """Yield each surface, drawn into the folder *pictures*; *place* is an empty folder.

    A notebook that JupyterLab does not trust holds them, without a kernel: what remains when
    somebody opens a saved one.
    """
    folder = place / "notebooks"
    folder.mkdir()
    shown = surfaces()
    cells = [
        new_code_cell(name, outputs=[new_output("display_data", bundle)])
        for name, bundle in shown.items()
    ]
    metadata = {"kernelspec": {"name": "none", "display_name": "none", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=metadata), folder / "surfaces.ipynb")
    environment = dict(os.environ)
    with jupyter_lab(folder, environment) as address, chromium() as browser:
        url = address.format("surfaces.ipynb")
        yield [
            each
            for theme in THEMES
            for width in WIDTHS
            for each in _draw(browser, url, list(shown), theme, width, pictures)
        ]


def _draw(browser, url, names, theme, width, pictures) -> Iterator[Shown]:
    page = browser.new_page(viewport={"width": width, "height": HEIGHT}, color_scheme=theme)
    page.set_default_timeout(60_000)  # milliseconds
    page.goto(f"{url}&reset")
    page.wait_for_selector(".jp-NotebookPanel .jp-CodeCell")
    page.click(".jp-Dialog button:has-text('No Kernel')")
    page.wait_for_selector(".jp-Dialog", state="detached")
    choose_theme(page, theme)
    page.keyboard.press("Control+B")  # hides the file browser
    page.add_style_tag(content=_style())
    page.evaluate("document.fonts.ready")
    outputs = page.locator(OUTPUT)
    page.wait_for_function(f"document.querySelectorAll('{OUTPUT}').length === {len(names)}")
    for number, name in enumerate(names):
        output = outputs.nth(number)
        output.scroll_into_view_if_needed()
        broken = output.evaluate(f"root => ({RULES})(root, {MIN_FONT})")
        full = f"{name}-{theme}-{width}"
        output.screenshot(path=pictures / f"{full}.png", animations="disabled")
        yield Shown(full, pictures / f"{full}.png", broken)
    page.close()


def choose_theme(page, theme: str) -> None:
    """Choose JupyterLab's light or dark theme in the menu."""
    name = f"JupyterLab {theme.title()}"
    page.click(".lm-MenuBar-itemLabel:text-is('Settings')")
    page.hover(".lm-Menu-itemLabel:text-is('Theme')")
    page.click(f".lm-Menu-itemLabel:text-is('{name}')")
    page.wait_for_selector(f"[data-jp-theme-name='{name}']", state="attached")


def _style() -> str:
    """Return a style sheet that draws all text with fonts that come with matplotlib."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    faces = "".join(
        f"@font-face {{font-family: {name}; font-weight: {weight};"
        f"src: url(data:font/ttf;base64,{_base64(folder / file)})}}"
        for name, weight, file in (
            ("surface", "normal", "DejaVuSans.ttf"), ("surface", "bold", "DejaVuSans-Bold.ttf"),
            ("surface-mono", "normal", "DejaVuSansMono.ttf"),
        )
    )  # fmt: skip
    return (
        f"{faces} {OUTPUT} {{font-family: surface !important}}"
        f"{OUTPUT} * {{font-family: inherit !important}}"
        f"{OUTPUT} :is(pre, code) {{font-family: surface-mono !important}}"
    )


def _base64(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()
