"""What a person does in JupyterLab, done by Playwright in a real Chromium."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_check_report import HOSTILE, make_grid

from mousetrap.check.report import write_report

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
SCREENSHOTS = NOTEBOOKS / "_build" / "screenshots"  # git-ignored

LAB_SETTINGS = {
    # all cells in the page, also those that are out of sight
    "notebook-extension/tracker": {"windowingMode": "none"},
    # no question that covers the notebook, no call to the outside
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


def missing(what: str) -> None:
    """Skip at home, fail in CI, as for every tool that a test needs."""
    if os.environ.get("CI"):
        pytest.fail(f"no {what}")
    pytest.skip(f"no {what}")


@pytest.fixture
def page():
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next((path for name in names if (path := shutil.which(name))), None)
    if chromium is None:
        missing("Chromium on the PATH")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("Playwright: pip install 'mousetrap[test]'")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        try:
            page = browser.new_page(viewport={"width": 1280, "height": 1000})
            page.set_default_timeout(60_000)  # milliseconds
            yield page
        finally:
            browser.close()


@contextmanager
def jupyter_lab(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """Run a JupyterLab of our own on *folder* and yield its address; no kernel outlives it."""
    own = folder.parent / "jupyter"
    for name, values in LAB_SETTINGS.items():
        file = own / "config/lab/user-settings/@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    address = f"http://127.0.0.1:{port}"
    environment = environment | {
        "JUPYTER_CONFIG_DIR": str(own / "config"),
        "JUPYTER_DATA_DIR": str(own / "data"),
        "JUPYTER_RUNTIME_DIR": str(own / "runtime"),
        "IPYTHONDIR": str(own / "ipython"),
        "JUPYTER_TOKEN": token,  # by the environment: a command line can be seen by others
    }
    options = ["--no-browser", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    options += ["--ServerApp.ip=127.0.0.1", "--ServerApp.allow_root=True"]
    options += [f"--ServerApp.root_dir={folder}", "--LabApp.extension_manager=readonly"]
    log = own / "log"
    with log.open("wb") as stream:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
            env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def ask(way: str, method: str = "GET"):
        headers = {"Authorization": f"token {token}"}
        request = urllib.request.Request(f"{address}/api/{way}", method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read() or b"null")

    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                ask("status")
                break
            except OSError:
                if time.monotonic() > deadline or server.poll() is not None:
                    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")
                with pytest.raises(subprocess.TimeoutExpired):  # it lives: look again soon
                    server.wait(0.1)
        yield f"{address}/lab/tree/{{}}?token={token}"
        for kernel in ask("kernels"):
            ask(f"kernels/{kernel['id']}", "DELETE")
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(5)


def run_all_cells(page) -> None:
    """Choose "Run All Cells" in the menu and wait until each code cell has its number."""
    page.wait_for_selector(".jp-NotebookPanel .jp-CodeCell")
    # not the notebook's own indicator: that says "idle" before there is a connection
    page.wait_for_selector(".jp-StatusBar-Widget :text('| Idle')")
    page.click(".lm-MenuBar-itemLabel:text-is('Run')")
    page.click(".lm-Menu-itemLabel:text-is('Run All Cells')")
    page.wait_for_function(
        """() => {
            const cells = [...document.querySelectorAll('.jp-CodeCell')];
            const failed = document.querySelector('[data-mime-type$="jupyter.error"]');
            const done = cell => /\\[\\d+\\]/.test(
                cell.querySelector('.jp-InputArea-prompt').textContent);
            return failed || cells.length > 0 && cells.every(done);
        }"""
    )


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
