"""Panels and reports in a real Chromium, which Playwright drives."""

from __future__ import annotations

import nbformat
import pytest
from support.grids import HOSTILE, make_grid
from support.hostile_text import PAYLOADS, bundles
from support.jupyterlab import SCREENSHOTS, chromium

from mousetrap import Panel
from mousetrap.check.report import write_report
from mousetrap.run_fetch_worker import fetch

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]


def test_saved_panel_needs_no_javascript(tmp_path, settings):
    """nbconvert's page without JavaScript has the picture and the table of a panel."""
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
    """All payloads in all displays, on one page with scripts allowed, do nothing."""
    monkeypatch.setattr("mousetrap.job_queue.depths", lambda *_, **__: [])
    shows = [each.get("text/html", "") for text in PAYLOADS for each in bundles(text).values()]
    head = "<!doctype html><meta charset=utf-8><title>all of it</title>"
    (tmp_path / "all.html").write_text(head + "\n".join(shows), encoding="utf-8")
    address = (tmp_path / "all.html").as_uri()
    events = []
    page.on("dialog", lambda dialog: (events.append(dialog.message), dialog.dismiss()))
    page.on("console", lambda message: events.append(message.text))
    page.on("request", lambda request: events.append(request.url))

    page.goto(address)
    acting = page.locator("script, iframe, object, embed, form, input, a, style, link, svg").count()
    page.mouse.move(200, 200)

    assert acting == 0
    assert [each for each in events if not each.startswith(("data:image/svg", address))] == []
    assert len(shows) > 50 * 20


def test_report_on_a_grid_is_inert_and_opens_what_is_asked_for(page, tmp_path):
    """In a grid's report no content of a notebook acts, and links open what they name."""
    events = []
    page.on("dialog", lambda dialog: (events.append(dialog.message), dialog.dismiss()))
    page.on("console", lambda message: events.append(message.text))
    page.on("request", lambda request: events.append(request.url))
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

    assert [each for each in events if not each.startswith(("data:", address))] == []
