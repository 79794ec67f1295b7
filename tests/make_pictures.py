"""Makes pictures in a real JupyterLab; run it in the project's environment.

``python tests/make_pictures.py readme`` makes the picture in the README: it runs all cells of
08_watching and takes a screenshot of the cell whose panel shows a run, while messages are handled.

``python tests/make_pictures.py surfaces`` draws everything that a notebook shows anew, and replaces
the pictures in ``tests/pictures`` that the tests compare with. It writes a page with the pictures
before and after, side by side, and prints its path: look at it before you commit them.
"""

from __future__ import annotations

import html
import os
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from support.committed_outputs import strip
from support.jupyterlab import NOTEBOOKS, SCREENSHOTS, chromium, jupyter_lab
from support.shown_surfaces import PICTURES, shown_surfaces

from mousetrap.broker import ensure

PICTURE = NOTEBOOKS / "pictures" / "08_watching.png"
LATENCY = "latency: float = 0.02"
AT_WORK = """() => {
    const panels = document.querySelectorAll('.mousetrap');
    if (panels.length < 2) return false;
    const rows = [...panels[1].querySelectorAll('tr')].map(row => row.innerText.split('\\t'));
    const done = rows[0].indexOf('done');
    return Number(rows.at(-1)[done]) > 220;
}"""


def make_surfaces() -> None:
    """Replace the pictures of all surfaces; write a page of those before and after."""
    now, before = SCREENSHOTS / "now", SCREENSHOTS / "before"
    for folder in (now, before):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    PICTURES.mkdir(exist_ok=True)
    for file in PICTURES.glob("*.png"):
        shutil.move(file, before / file.name)
    with tempfile.TemporaryDirectory() as place, shown_surfaces(Path(place), now) as shown:
        for each in shown:
            shutil.copy(each.file, PICTURES / each.file.name)
            for rule in each.broken_rules:
                print(f"{each.name}: {rule}")
    page = SCREENSHOTS / "before_and_after.html"
    page.write_text(side_by_side([each.file.name for each in shown]), encoding="utf-8")
    print(page)


def side_by_side(names: list[str]) -> str:
    """Return a page with the pictures of these names in the folders ``before`` and ``now``."""
    rows = "".join(
        f"<h2>{html.escape(name.removesuffix('.png'))}</h2><div>"
        + "".join(
            f"<figure><figcaption>{folder}</figcaption>"
            f"<img src='{folder}/{name}' alt='{name} {folder}'></figure>"
            for folder in ("before", "now")
        )
        + "</div>"
        for name in names
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>before and after</title><style>"
        "body{font-family:sans-serif;background:#888}div{display:flex;gap:1rem}"
        "figure{flex:1;min-width:0;margin:0}img{max-width:100%}</style>" + rows
    )


def make_readme() -> None:
    """Write the picture of the README; needs Chromium, a broker and the extra ``test``."""
    with tempfile.TemporaryDirectory() as place, ensure() as broker:
        folder = Path(place) / "notebooks"
        folder.mkdir()
        notebook = Path(shutil.copy(NOTEBOOKS / "08_watching.ipynb", folder))
        strip(notebook)
        text = notebook.read_text(encoding="utf-8")
        assert LATENCY in text
        notebook.write_text(text.replace(LATENCY, LATENCY.replace("0.02", "0.08")), "utf-8")
        environment = os.environ | broker.environment()
        with jupyter_lab(folder, environment) as address, chromium() as browser:
            page = browser.new_page(
                viewport={"width": 1180, "height": 900}, device_scale_factor=1.5
            )
            page.set_default_timeout(90_000)  # milliseconds
            page.goto(address.format(notebook.name))
            page.wait_for_selector(".jp-StatusBar-Widget :text('| Idle')")
            page.keyboard.press("Control+B")  # hides the file browser
            page.click(".lm-MenuBar-itemLabel:text-is('Run')")
            page.click(".lm-Menu-itemLabel:text-is('Run All Cells')")
            page.wait_for_function(AT_WORK)
            page.locator(".jp-CodeCell:has(.mousetrap)").nth(1).screenshot(path=PICTURE)
    reduce(PICTURE)
    print(PICTURE)


def reduce(picture: Path) -> None:
    """Write *picture* again with 256 colours, which makes it less than half as large."""
    Image.open(picture).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
        picture, optimize=True
    )


if __name__ == "__main__":
    makers = {"readme": make_readme, "surfaces": make_surfaces}
    if len(sys.argv) != 2 or sys.argv[1] not in makers:
        sys.exit(f"usage: python tests/make_pictures.py [{' | '.join(makers)}]")
    makers[sys.argv[1]]()
