"""Every notebook in a real JupyterLab; a consumer and its toolbar; panels in the browser."""

from __future__ import annotations

import io
import os
import re
import shutil
import threading
import time

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image
from support.committed_outputs import strip
from support.jupyterlab import (
    ALL_DONE,
    NOTEBOOKS,
    SCREENSHOTS,
    chromium,
    jupyter_lab,
    run_all_cells,
    save,
    start_all_cells,
)

from mousetrap import Panel
from mousetrap.job_queue import declare, depth
from mousetrap.notebook.freshness import VALID
from mousetrap.run_fetch_worker import fetch

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

TESTED_ELSEWHERE = {"08_watching.ipynb"}  # by the test of panels
SLOW = {"06_bad_day.ipynb": pytest.mark.long}  # it kills a broker of its own
NUMBERED = [
    pytest.param(name, marks=SLOW.get(name, ()))
    for name in sorted({path.name for path in NOTEBOOKS.glob("[0-9]*.ipynb")} - TESTED_ELSEWHERE)
]
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
SIZE = "image => [image.naturalWidth, image.naturalHeight]"
ERROR = "[data-mime-type='application/vnd.jupyter.error']"
CELLS = [
    "from mousetrap import Settings, consume\n"
    "settings = Settings.from_environment()\n"
    "settings = settings.replace(namespace=NAMESPACE, queues_expire=True, queue_expiry=60.0)",
    "def handle_it(n: int) -> None:\n    print(n)",
    "handle = consume('work', handle_it, settings)",
    "handle.wait_until(done=1_000_000, timeout=600)",
    "handle.statistics().state",
]


@pytest.fixture(scope="module")
def lab(broker, tmp_path_factory):
    """One JupyterLab and one browser for all tests of this file, because both are slow to start."""
    folder = tmp_path_factory.mktemp("lab") / "notebooks"
    shutil.copytree(NOTEBOOKS, folder, ignore=shutil.ignore_patterns("_build"))
    for path in folder.glob("*.ipynb"):  # with numbers, cells would seem to have run already
        strip(path)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    environment = os.environ | broker.environment()
    with jupyter_lab(folder, environment) as address, chromium() as browser:
        yield folder, address, browser


@pytest.fixture
def open_notebook(lab):
    """Open a notebook of the folder in a new page."""
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


def eventually(condition, timeout):
    """Wait until *condition* holds; return the seconds that it took."""
    started, pause = time.monotonic(), threading.Event()
    while not condition():
        assert time.monotonic() - started < timeout, (
            f"the condition was not met within {timeout:g} s"
        )
        pause.wait(0.1)  # a look takes a round trip to the browser, or a picture
    return time.monotonic() - started


def choose(page, menu, item):
    page.click(f".lm-MenuBar-itemLabel:text-is('{menu}')")
    page.click(f".lm-Menu-itemLabel:has-text('{item}')")


def run_cell(page, number):
    """Click into a cell and press Shift+Enter."""
    page.locator(".jp-CodeCell .cm-content").nth(number).click()
    page.keyboard.press("Shift+Enter")


def prompt(page, number):
    return page.locator(".jp-CodeCell .jp-InputArea-prompt").nth(number).inner_text()


@pytest.mark.parametrize("name", NUMBERED)
def test_every_numbered_notebook_runs_in_jupyterlab(open_notebook, broker, name):
    """All cells run without an error, and plots are shown."""
    page = open_notebook(name)

    run_all_cells(page)

    assert page.locator(ERROR).all_inner_texts() == []
    text = page.locator(".jp-Notebook").inner_text()
    assert broker.settings.password not in text
    if name == "00_start_here.ipynb":
        assert "[51.95838, 4.47124, 'Schiebroek'" in text
    page.screenshot(path=SCREENSHOTS / name.replace(".ipynb", ".png"), full_page=True)
    cells = nbformat.read(open_notebook.folder / name, as_version=4).cells
    source = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    if "plot." in source or "run.plot()" in source:
        width, height = page.locator(".jp-RenderedImage img").first.evaluate(SIZE)
        assert width > 600
        assert height > (300 if name == "00_start_here.ipynb" else 200)
    if "mousetrap.panel(" in source:
        assert page.locator("img[src^='data:image/svg']").count() >= 1


def test_toolbar_re_run_interrupt_and_restart(open_notebook, settings):
    """A cell run again leaves one consumer, an interrupt keeps it, a restart ends it."""
    declare("work", settings=settings)
    cells = [source.replace("NAMESPACE", repr(settings.namespace)) for source in CELLS]
    notebook = new_notebook(
        cells=[new_code_cell(source) for source in cells],
        metadata=KERNEL,
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
    cells = page.locator(".jp-Notebook")
    seconds = eventually(lambda: "KeyboardInterrupt" in cells.inner_text(), 10)
    run_cell(page, 4)
    eventually(lambda: "'open'" in page.locator(".jp-CodeCell").nth(4).inner_text(), 10)
    assert seconds < 3  # with the round trip of the browser
    assert consumers() == 1

    choose(page, "Kernel", "Restart Kernel…")
    page.click(".jp-Dialog button.jp-mod-accept")
    eventually(lambda: consumers() == 0, 10)


FIRST_PANEL = """() => {
    const panel = document.querySelector('.mousetrap');
    return [panel.innerText, [...panel.querySelectorAll('img[src^="data:image/svg"]')].at(-1).src];
}"""


def test_panel_lives_and_stays_when_it_is_reloaded(open_notebook, broker):
    """A panel changes while other cells run; after saving and loading its last state is there."""
    page = open_notebook("08_watching.ipynb")
    seen = {}  # text of the first panel -> its picture

    start_all_cells(page)
    page.locator(".mousetrap img").first.wait_for()
    while not page.evaluate(ALL_DONE):
        text, picture = page.evaluate(FIRST_PANEL)
        if text not in seen and len(seen) == 3:
            page.evaluate("document.querySelector('.mousetrap').scrollIntoView()")
            page.screenshot(path=SCREENSHOTS / "08_watching_live.png")
        seen[text] = picture
        page.wait_for_timeout(50)
    assert page.locator(ERROR).all_inner_texts() == []
    last, _ = page.evaluate(FIRST_PANEL)
    save(page, open_notebook.folder / "08_watching.ipynb")
    page.reload()
    saved = page.locator(".mousetrap")
    saved.first.wait_for()
    again = saved.all_inner_texts()

    assert len(seen) >= 3  # states
    assert len(set(seen.values())) >= 2  # pictures
    assert again[0] == last
    assert [each.split("\n")[0].split(":")[0] for each in again] == [
        "■ Stopped",
        "■ Settled",
        "■ Stopped",
    ]  # fmt: skip -- consumers, a run, one consumer
    assert broker.settings.password not in "".join([*seen, *again])
    for theme in ("Light", "Dark"):
        page.click(".lm-MenuBar-itemLabel:text-is('Settings')")
        page.hover(".lm-Menu-itemLabel:text-is('Theme')")
        page.click(f".lm-Menu-itemLabel:text-is('JupyterLab {theme}')")
        page.wait_for_selector(f"[data-jp-theme-name='JupyterLab {theme}']", state="attached")
        for n in range(len(again)):
            saved.nth(n).scroll_into_view_if_needed()
            page.screenshot(path=SCREENSHOTS / f"08_watching_{n}_{theme.lower()}.png")
            width, _ = saved.nth(n).locator("img").first.evaluate(SIZE)
            assert width > 400


FULL_RATE = """
import mousetrap
from mousetrap import stage

@stage(reads="first", writes="second", prefetch=256)
def pass_on(text: str) -> str:
    return text

@stage(reads="second", writes="third", prefetch=256)
def pass_on_again(text: str) -> str:
    return text

with mousetrap.run([pass_on, pass_on_again]) as run:
    mousetrap.panel(run)
    run.send_many(["x" * 200] * 20_000)
    print("done:", run.settle(timeout=120).done)
"""
TIMER = """() => {
    window.gaps = [];
    let last = performance.now();
    setInterval(() => {
        const now = performance.now();
        window.gaps.push(now - last);
        last = now;
    }, 20);
}"""


def test_browser_stays_responsive_beside_a_flow_at_full_rate(open_notebook):
    """While a panel shows 20,000 messages, the page's timer is never late by a second."""
    notebook = new_notebook(metadata=KERNEL, cells=[new_code_cell(FULL_RATE)])
    nbformat.write(notebook, open_notebook.folder / "full_rate.ipynb")

    page = open_notebook("full_rate.ipynb")
    page.locator(".jp-Notebook").wait_for()
    page.evaluate(TIMER)
    run_all_cells(page)
    gaps = page.evaluate("window.gaps")
    text = page.locator(".jp-Notebook").inner_text()

    assert "done: 20000" in text
    assert len(gaps) > 50
    assert max(gaps) < 1000, f"the page did not react for {max(gaps):.0f} ms"


def test_panel_of_a_notebook_from_somewhere_else_is_shown(open_notebook, settings):
    """In a notebook that JupyterLab does not trust, its sanitizer keeps picture and table."""
    shown = Panel(fetch.worker(settings)).bundle()
    cell = new_code_cell(outputs=[new_output("display_data", shown)])
    nbformat.write(new_notebook(cells=[cell]), open_notebook.folder / "theirs.ipynb")

    page = open_notebook("theirs.ipynb")
    panel = page.locator(".mousetrap")
    panel.wait_for()
    width, _ = panel.locator("img").first.evaluate(SIZE)
    text = panel.inner_text()

    assert width > 300
    assert "per s" in text


LIVE = [
    "from mousetrap import Settings, consume, panel\n"
    "settings = Settings.from_environment()\n"
    "settings = settings.replace(namespace=NAMESPACE, queues_expire=True, queue_expiry=60.0)\n"
    "def handle_it(n: int) -> None: ...\n"
    "handle = consume('work', handle_it, settings)",
    "panel(handle)",
]
DOT = ".mousetrap img[width='14']"


def color_of(mark):
    """Return the colour that covers most of the middle of a mark, as (red, green, blue)."""
    image = Image.open(io.BytesIO(mark.screenshot(animations="allow"))).convert("RGB")
    middle = image.crop((5, 5, 9, 9)).getcolors()
    return max(middle)[1]


def is_green(color):
    red, green, blue = color
    return green > red + 60 and green > blue + 20


def test_panel_says_that_its_kernel_is_gone(open_notebook, settings):
    """After a restart, a kill, and in a notebook saved before, its mark is green no longer.

    JupyterLab drops what a kernel sends while it restarts, so the mark must fade by itself.
    """
    declare("work", settings=settings)
    sources = [source.replace("NAMESPACE", repr(settings.namespace)) for source in LIVE]
    notebook = new_notebook(cells=[new_code_cell(each) for each in sources], metadata=KERNEL)
    file = open_notebook.folder / "gone.ipynb"
    nbformat.write(notebook, file)
    page = open_notebook("gone.ipynb")
    run_all_cells(page)
    dot = page.locator(DOT)
    dot.wait_for()
    first = dot.get_attribute("src")
    eventually(lambda: dot.get_attribute("src") != first, 20)  # though nothing happens
    alive = color_of(dot)
    page.screenshot(path=SCREENSHOTS / "panel_live.png")
    save(page, file)

    choose(page, "Kernel", "Restart Kernel…")
    page.click(".jp-Dialog button.jp-mod-accept")
    eventually(lambda: not is_green(color_of(dot)), VALID + 10)
    text = page.locator(".mousetrap").inner_text()
    for theme in ("Light", "Dark"):
        page.click(".lm-MenuBar-itemLabel:text-is('Settings')")
        page.hover(".lm-Menu-itemLabel:text-is('Theme')")
        page.click(f".lm-Menu-itemLabel:text-is('JupyterLab {theme}')")
        page.wait_for_selector(f"[data-jp-theme-name='JupyterLab {theme}']", state="attached")
        page.screenshot(path=SCREENSHOTS / f"panel_gone_{theme.lower()}.png")
    page.reload()
    dot.wait_for()
    eventually(lambda: not is_green(color_of(dot)), VALID + 10)
    page.screenshot(path=SCREENSHOTS / "panel_gone_saved.png")

    assert is_green(alive)
    assert text.lstrip().startswith("Waiting for messages")
    assert re.search(r"as of [\d-]+ [\d:]+\n", text)


def test_panel_says_that_its_kernel_was_shut_down(open_notebook, settings):
    """What the kernel sends at its end is shown: the last state says that the kernel has ended."""
    declare("work", settings=settings)
    sources = [source.replace("NAMESPACE", repr(settings.namespace)) for source in LIVE]
    notebook = new_notebook(cells=[new_code_cell(each) for each in sources], metadata=KERNEL)
    nbformat.write(notebook, open_notebook.folder / "shut_down.ipynb")
    page = open_notebook("shut_down.ipynb")
    run_all_cells(page)
    panel = page.locator(".mousetrap")
    panel.wait_for()

    choose(page, "Kernel", "Shut Down Kernel")
    page.locator(".mousetrap:has-text('the kernel has ended')").wait_for(timeout=20_000)
    page.screenshot(path=SCREENSHOTS / "panel_shut_down.png")

    assert panel.inner_text().startswith("■ Stopped")
    assert page.locator(DOT).count() == 0
