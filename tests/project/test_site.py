"""The documentation as a site: it builds, and reads well in a browser without a network."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from support.documentation import PAGES, ROOT
from support.jupyterlab import chromium

SITE = PAGES / "_build" / "html"
SIZES = [(400, "dark"), (800, "light"), (1300, "dark"), (1300, "light")]
READ = [  # pages that have all that a page can have: tables, code, outputs, entries
    "index.html", "notebooks/08_watching.html", "notebooks/09_shapes.html", "reference/flows.html",
    "reference/cli.html", "coming_from/celery.html", "tests/FAULTS.html",
]  # fmt: skip
# Elements with text of their own that are too small to read, as their names and sizes.
TOO_SMALL = """() => [...document.querySelectorAll("body *")]
    .filter(each => each.checkVisibility({visibilityProperty: true})
        && [...each.childNodes].some(node => node.nodeType === 3 && node.textContent.trim())
        && parseFloat(getComputedStyle(each).fontSize) < 11)
    .map(each => `${each.tagName} ${getComputedStyle(each).fontSize}`)"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"

pytestmark = [pytest.mark.long, pytest.mark.browser]


@pytest.fixture(scope="module")
def site():
    """The site as `deploy/docs.py` builds it; its environment is made if there is none."""
    without_github = {k: v for k, v in os.environ.items() if not k.startswith("GITHUB_")}
    done = subprocess.run(
        [sys.executable, ROOT / "deploy" / "docs.py"],
        env=without_github, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return SITE


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.mark.timeout(600)
def test_search_finds_a_name_without_a_server(site, browser):
    """The site is opened as a file, and nothing is fetched from another place."""
    page = browser.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))

    page.goto(f"{(site / 'index.html').as_uri()}")
    page.locator("input[name=q]").first.fill("settle")
    page.keyboard.press("Enter")
    page.wait_for_selector("#search-results a")

    found = page.locator("#search-results a").evaluate_all("all => all.map(each => each.href)")
    assert any("reference/runs.html" in link for link in found), found
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_pages_fit_and_can_be_read(site, browser, width, scheme):
    """Nothing is cut off at the side, and no text is smaller than 11 pixels."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    for name in READ:
        page.goto((site / name).as_uri())

        assert page.evaluate(OVERFLOW) <= 0, name
        assert page.evaluate(TOO_SMALL) == [], name
