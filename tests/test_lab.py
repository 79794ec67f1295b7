"""Every notebook in a real JupyterLab; and what the buttons of its toolbar do to a consumer."""

from __future__ import annotations

import os
import shutil
import time

import nbformat
import pytest
from lab import NOTEBOOKS, SCREENSHOTS, chromium, jupyter_lab, run_all_cells
from nbformat.v4 import new_code_cell, new_notebook

from mousetrap.job_queue import declare, depth

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

NUMBERED = sorted(path.name for path in NOTEBOOKS.glob("0*.ipynb"))
ERROR = "[data-mime-type='application/vnd.jupyter.error']"
CELLS = [
    "from mousetrap import Settings, consume\n"
    "settings = Settings.from_environment().but(namespace=NAMESPACE, queue_expiry=60.0)",
    "def handle_it(n: int) -> None:\n    print(n)",
    "handle = consume('work', handle_it, settings)",
    "handle.wait_until(done=1_000_000, timeout=600)",
    "handle.statistics().state",
]


@pytest.fixture(scope="module")
def lab(broker, tmp_path_factory):
    """One JupyterLab and one browser for all tests of this file: both are slow to start."""
    folder = tmp_path_factory.mktemp("lab") / "notebooks"
    shutil.copytree(NOTEBOOKS, folder, ignore=shutil.ignore_patterns("_build"))
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    environment = os.environ | broker.environment()
    with jupyter_lab(folder, environment) as address, chromium() as browser:
        yield folder, address, browser


@pytest.fixture
def open_notebook(lab):
    """Open a notebook of the folder in a page of its own."""
    folder, address, browser = lab
    pages = []

    def open_it(name):
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(90_000)  # milliseconds
        pages.append(page)
        page.goto(address.format(name) + "&reset")
        return page

    open_it.folder = folder
    yield open_it
    for page in pages:
        page.close()


def eventually(claim, timeout):
    """Wait until *claim* holds, and say how long that took."""
    started = time.monotonic()
    while not claim():
        assert time.monotonic() - started < timeout, "it did not come true in time"
    return time.monotonic() - started


def choose(page, menu, item):
    page.click(f".lm-MenuBar-itemLabel:text-is('{menu}')")
    page.click(f".lm-Menu-itemLabel:has-text('{item}')")


def run_cell(page, number):
    """Click into a cell and press Shift+Enter, as people do."""
    page.locator(".jp-CodeCell .cm-content").nth(number).click()
    page.keyboard.press("Shift+Enter")


def prompt(page, number):
    return page.locator(".jp-CodeCell .jp-InputArea-prompt").nth(number).inner_text()


@pytest.mark.parametrize("name", NUMBERED)
def test_every_numbered_notebook_runs_in_jupyterlab(open_notebook, broker, name):
    """All cells, from the first to the last, without an error; pictures where there are plots."""
    page = open_notebook(name)

    run_all_cells(page)

    assert page.locator(ERROR).all_inner_texts() == []
    text = page.locator(".jp-Notebook").inner_text()
    assert broker.settings.password not in text
    page.screenshot(path=SCREENSHOTS / name.replace(".ipynb", ".png"), full_page=True)
    cells = nbformat.read(open_notebook.folder / name, as_version=4).cells
    source = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    if "plot." in source or "run.plot()" in source:
        assert page.locator(".jp-RenderedImage img").count() >= 1
    if "mousetrap.panel(" in source:
        assert page.locator("img[src^='data:image/svg']").count() >= 1


def test_toolbar_re_run_interrupt_and_restart(open_notebook, settings):
    """Run a consumer cell again: one consumer. Interrupt a wait: at once, and it goes on
    consuming. Restart the kernel: no consumer is left.
    """
    declare("work", settings=settings)
    cells = [source.replace("NAMESPACE", repr(settings.namespace)) for source in CELLS]
    notebook = new_notebook(
        cells=[new_code_cell(source) for source in cells],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    nbformat.write(notebook, open_notebook.folder / "consumer.ipynb")
    page = open_notebook("consumer.ipynb")
    page.wait_for_selector(".jp-StatusBar-Widget :text('| Idle')")

    def consumers():
        return depth("work", settings).consumers

    for number in (0, 1, 2, 2, 2):
        before = prompt(page, number)
        run_cell(page, number)
        eventually(lambda n=number, b=before: prompt(page, n) not in (b, "[*]:"), 30)
    assert consumers() == 1

    run_cell(page, 3)
    eventually(lambda: prompt(page, 3) == "[*]:", 10)
    choose(page, "Kernel", "Interrupt Kernel")
    said = page.locator(".jp-Notebook")
    seconds = eventually(lambda: "KeyboardInterrupt" in said.inner_text(), 10)
    run_cell(page, 4)
    eventually(lambda: "'open'" in page.locator(".jp-CodeCell").nth(4).inner_text(), 10)
    assert seconds < 3  # the browser's own way there and back included
    assert consumers() == 1

    choose(page, "Kernel", "Restart Kernel…")
    page.click(".jp-Dialog button.jp-mod-accept")
    eventually(lambda: consumers() == 0, 10)
