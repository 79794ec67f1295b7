"""A JupyterLab server for the tests, and a Chromium that uses it as a person does."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from mousetrap.broker.configuration import free_ports
from mousetrap.pytest_plugin import missing

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SCREENSHOTS = NOTEBOOKS / "_build" / "screenshots"  # git-ignored

LAB_SETTINGS = {
    # all cells in the page, also those that are not visible
    "notebook-extension/tracker": {"windowingMode": "none"},
    # no dialog over the notebook, no request to the outside
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


ALL_DONE = """() => {
    const cells = [...document.querySelectorAll('.jp-CodeCell')];
    const failed = document.querySelector('[data-mime-type$="jupyter.error"]');
    const done = cell => /\\[\\d+\\]/.test(
        cell.querySelector('.jp-InputArea-prompt').textContent);
    return failed || cells.length > 0 && cells.every(done);
}"""


@contextmanager
def chromium() -> Iterator:
    """Start Chromium and yield Playwright's browser."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next((path for name in names if (path := shutil.which(name))), None)
    if program is None:
        missing("no Chromium on the PATH")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("no Playwright: pip install 'mousetrap-mq[test]'")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=flags)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def jupyter_lab(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """Run a JupyterLab on *folder* and yield its address; all of its kernels end with it."""
    private = folder.parent / "jupyter"
    for name, values in LAB_SETTINGS.items():
        file = private / "config/lab/user-settings/@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    [port] = free_ports(1)
    token = secrets.token_hex(16)
    address = f"http://127.0.0.1:{port}"
    environment = environment | {
        "JUPYTER_CONFIG_DIR": str(private / "config"),
        "JUPYTER_DATA_DIR": str(private / "data"),
        "JUPYTER_RUNTIME_DIR": str(private / "runtime"),
        "IPYTHONDIR": str(private / "ipython"),
        "JUPYTER_TOKEN": token,  # in the environment: other users can see a command line
    }
    options = ["--no-browser", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    options += ["--ServerApp.ip=127.0.0.1", "--ServerApp.allow_root=True"]
    options += [f"--ServerApp.root_dir={folder}", "--LabApp.extension_manager=readonly"]
    log = private / "log"
    with log.open("wb") as stream:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
            env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def request_api(path: str, method: str = "GET"):
        headers = {"Authorization": f"token {token}"}
        request = urllib.request.Request(f"{address}/api/{path}", method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read() or b"null")

    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                request_api("status")
                break
            except OSError:
                if time.monotonic() > deadline or server.poll() is not None:
                    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")
                with pytest.raises(subprocess.TimeoutExpired):  # it still runs
                    server.wait(0.1)
        yield f"{address}/lab/tree/{{}}?token={token}"
        for kernel in request_api("kernels"):
            with suppress(urllib.error.HTTPError):  # a test has shut it down
                request_api(f"kernels/{kernel['id']}", "DELETE")
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(5)


def start_all_cells(page) -> None:
    """Choose "Run All Cells" in the menu."""
    page.wait_for_selector(".jp-NotebookPanel .jp-CodeCell")
    # not the notebook's own indicator, which says "idle" before there is a connection
    page.wait_for_selector(".jp-StatusBar-Widget :text('| Idle')")
    page.click(".lm-MenuBar-itemLabel:text-is('Run')")
    page.click(".lm-Menu-itemLabel:text-is('Run All Cells')")


def save(page, file: Path) -> None:
    """Choose "Save Notebook" in the menu and wait until *file* has changed."""
    before, deadline = file.read_bytes(), time.monotonic() + 30
    page.click(".lm-MenuBar-itemLabel:text-is('File')")
    page.click(".lm-Menu-itemLabel:text-is('Save Notebook')")
    while file.read_bytes() == before:
        assert time.monotonic() < deadline, "the notebook was not saved"
        page.wait_for_timeout(50)


def run_all_cells(page) -> None:
    """Run all cells and wait until each has its number, or one has failed."""
    start_all_cells(page)
    page.wait_for_function(ALL_DONE, polling=100)  # milliseconds; else with each frame
