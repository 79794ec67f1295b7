"""What a person does in JupyterLab, done by Playwright in a real Chromium."""

from __future__ import annotations

import os
import shutil

import nbformat
import pytest
from lab import (
    ALL_DONE,
    NOTEBOOKS,
    SCREENSHOTS,
    chromium,
    jupyter_lab,
    run_all_cells,
    save,
    start_all_cells,
)
from test_check_report import HOSTILE, make_grid
from test_hostile import PAYLOADS, bundles

from mousetrap import Panel
from mousetrap.check.report import write_report
from mousetrap.run_fetch_worker import fetch

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]


def test_start_here_runs_in_jupyterlab(page, settings, tmp_path):
    """All cells of 00_start_here run in JupyterLab; a person sees the result and the picture."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    shutil.copy(NOTEBOOKS / "00_start_here.ipynb", folder)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)

    with jupyter_lab(folder, os.environ | settings.to_environment()) as address:
        page.goto(address.format("00_start_here.ipynb"))
        run_all_cells(page)
        errors = page.locator("[data-mime-type='application/vnd.jupyter.error']").all_inner_texts()
        text = page.locator(".jp-Notebook").inner_text()
        picture = page.locator(".jp-RenderedImage img")
        picture.scroll_into_view_if_needed()
        width, height = picture.evaluate("image => [image.naturalWidth, image.naturalHeight]")
        page.screenshot(path=SCREENSHOTS / "00_start_here.png")

    assert errors == []
    assert "Summary(places=12, most_northerly=(51.95838, 4.47124, 'Schiebroek'" in text
    assert width > 600
    assert height > 300
    assert settings.password not in text


FIRST_PANEL = """() => {
    const panel = document.querySelector('.mousetrap');
    return [panel.innerText, panel.querySelector('img').src];
}"""


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
def test_panel_lives_in_jupyterlab_and_stays_when_it_is_reloaded(page, settings, tmp_path, is_dark):
    """It moves while other cells run; saved and loaded again, its last picture is there."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    shutil.copy(NOTEBOOKS / "08_watching.ipynb", folder)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    theme = "dark" if is_dark else "light"
    seen = {}  # what the first panel said -> the picture that it showed

    with jupyter_lab(folder, os.environ | settings.to_environment(), is_dark=is_dark) as address:
        page.goto(address.format("08_watching.ipynb"))
        start_all_cells(page)
        page.locator(".mousetrap img").first.wait_for()
        while not page.evaluate(ALL_DONE):
            text, picture = page.evaluate(FIRST_PANEL)
            if text not in seen and len(seen) == 3:
                page.evaluate("document.querySelector('.mousetrap').scrollIntoView()")
                page.screenshot(path=SCREENSHOTS / f"08_watching_live_{theme}.png")
            seen[text] = picture
        errors = page.locator("[data-mime-type='application/vnd.jupyter.error']").all_inner_texts()
        last, _ = page.evaluate(FIRST_PANEL)
        save(page, folder / "08_watching.ipynb")
        page.reload()
        saved = page.locator(".mousetrap")
        saved.first.wait_for()
        again = saved.all_inner_texts()
        sizes = [
            saved.nth(n).locator("img").evaluate("i => [i.naturalWidth, i.naturalHeight]")
            for n in range(len(again))
        ]
        for n in range(len(again)):
            saved.nth(n).scroll_into_view_if_needed()
            page.screenshot(path=SCREENSHOTS / f"08_watching_{n}_{theme}.png")

    assert errors == []
    assert len(seen) >= 3  # states
    assert len(set(seen.values())) >= 2  # pictures
    assert again[0] == last
    assert ["closed" in each for each in again] == [True] * 3  # consumers, a run, one consumer
    assert all(width > 400 and height > 90 for width, height in sizes)
    assert settings.password not in "".join([*seen, *again])


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
TICKING = """() => {
    window.gaps = [];
    let last = performance.now();
    setInterval(() => {
        const now = performance.now();
        window.gaps.push(now - last);
        last = now;
    }, 20);
}"""


def test_browser_stays_responsive_beside_a_flow_at_full_rate(page, settings, tmp_path):
    """20,000 messages under a panel: the page's own clock, ticking between tasks, never stops."""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = nbformat.v4.new_notebook(
        metadata=kernel, cells=[nbformat.v4.new_code_cell(FULL_RATE)]
    )
    nbformat.write(notebook, tmp_path / "full_rate.ipynb")

    with jupyter_lab(tmp_path, os.environ | settings.to_environment()) as address:
        page.goto(address.format("full_rate.ipynb"))
        page.locator(".jp-Notebook").wait_for()
        page.evaluate(TICKING)
        run_all_cells(page)
        gaps = page.evaluate("window.gaps")
        text = page.locator(".jp-Notebook").inner_text()

    assert "done: 20000" in text
    assert len(gaps) > 50
    assert max(gaps) < 1000, f"nothing could be clicked for {max(gaps):.0f} ms"


def test_panel_of_a_notebook_from_somewhere_else_is_shown(page, settings, tmp_path):
    """JupyterLab cleans the HTML of a notebook that it does not trust: picture and table stay."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    shown = Panel(fetch.worker(settings)).bundle()
    cell = nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("display_data", shown)])
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), folder / "theirs.ipynb")

    with jupyter_lab(folder, os.environ | settings.to_environment()) as address:
        page.goto(address.format("theirs.ipynb"))
        panel = page.locator(".mousetrap")
        panel.wait_for()
        width = panel.locator("img").evaluate("image => image.naturalWidth")
        text = panel.inner_text()

    assert width > 300
    assert "per s" in text


def test_saved_panel_needs_no_javascript(tmp_path, settings):
    """nbconvert's page in a browser without JavaScript: the picture is there, and the table."""
    nbconvert = pytest.importorskip("nbconvert")
    shown = Panel(fetch.worker(settings)).bundle()
    cell = nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("display_data", shown)])
    notebook = nbformat.v4.new_notebook(cells=[cell])
    html, _ = nbconvert.HTMLExporter().from_notebook_node(notebook)
    (tmp_path / "saved.html").write_text(html, encoding="utf-8")

    with chromium() as browser:
        page = browser.new_context(java_script_enabled=False).new_page()
        page.goto((tmp_path / "saved.html").as_uri(), wait_until="domcontentloaded")
        picture = page.locator(".mousetrap img")
        box = picture.bounding_box()
        is_loaded = picture.evaluate("image => image.complete && image.naturalWidth > 300")
        text = page.locator(".mousetrap").inner_text()

    assert is_loaded
    assert box["width"] > 300
    assert "per s" in text


def test_hostile_text_does_nothing_in_a_browser(page, tmp_path, monkeypatch):
    """All payloads in everything that shows something, on one page with scripts allowed."""
    monkeypatch.setattr("mousetrap.job_queue.depths", lambda *_: [])
    shows = [each.get("text/html", "") for text in PAYLOADS for each in bundles(text).values()]
    head = "<!doctype html><meta charset=utf-8><title>all of it</title>"
    (tmp_path / "all.html").write_text(head + "\n".join(shows), encoding="utf-8")
    address = (tmp_path / "all.html").as_uri()
    heard = []
    page.on("dialog", lambda dialog: (heard.append(dialog.message), dialog.dismiss()))
    page.on("console", lambda message: heard.append(message.text))
    page.on("request", lambda request: heard.append(request.url))

    page.goto(address)
    acting = page.locator("script, iframe, object, embed, form, input, a, style, link, svg").count()
    page.mouse.move(200, 200)

    assert acting == 0
    assert [each for each in heard if not each.startswith(("data:image/svg", address))] == []
    assert len(shows) > 50 * 20


def test_report_on_a_grid_is_inert_and_opens_what_is_asked_for(page, tmp_path):
    """A browser runs nothing that a notebook wrote and loads nothing; links open what they name."""
    heard = []
    page.on("dialog", lambda dialog: (heard.append(dialog.message), dialog.dismiss()))
    page.on("console", lambda message: heard.append(message.text))
    page.on("request", lambda request: heard.append(request.url))
    address = (tmp_path / "index.html").as_uri()
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)

    write_report(make_grid(tmp_path, text="".join(HOSTILE)))
    page.goto(address)
    page.hover("tbody tr:first-child td")
    page.screenshot(path=SCREENSHOTS / "report.png", full_page=True)
    page.click(".squares a:last-child")
    page.wait_for_selector("#point-2", state="visible")
    page.click(".plots summary")
    page.wait_for_selector(".plots details[open] summary")

    assert [each for each in heard if not each.startswith(("data:", address))] == []
