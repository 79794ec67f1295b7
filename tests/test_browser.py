"""What a person does in JupyterLab, done by Playwright in a real Chromium."""

from __future__ import annotations

import os
import shutil

import pytest
from lab import NOTEBOOKS, SCREENSHOTS, jupyter_lab, run_all_cells
from test_check_report import HOSTILE, make_grid

from mousetrap.check.report import write_report

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
