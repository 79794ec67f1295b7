"""Makes the picture in the README: ``python tests/make_pictures.py`` in the project's environment.

It runs all cells of 08_watching in a real JupyterLab and takes a screenshot of the cell whose panel
shows a run, while messages are handled.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from support.jupyterlab import NOTEBOOKS, chromium, jupyter_lab

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


def main() -> None:
    """Write the picture; needs Chromium, a broker and the extra ``test``."""
    with tempfile.TemporaryDirectory() as place, ensure() as broker:
        folder = Path(place) / "notebooks"
        folder.mkdir()
        notebook = Path(shutil.copy(NOTEBOOKS / "08_watching.ipynb", folder))
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
    print(PICTURE)


if __name__ == "__main__":
    main()
