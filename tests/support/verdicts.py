"""The verdicts of papermill, `mousetrap check` and nbmake on the same notebooks, for comparison."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from xml.etree import ElementTree

import papermill
from traitlets.config import Config

from mousetrap.check import check_grid


def of_papermill(notebook: Path) -> bool:
    """Return whether papermill runs *notebook* without an error."""
    with tempfile.TemporaryDirectory() as folder:
        # by a Unix socket: two kernels that start at the same time can get the same port
        sockets = Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/kernel"}})
        try:
            papermill.execute_notebook(
                notebook, Path(folder, "out.ipynb"), progress_bar=False, kernel_name="python3",
                cwd=notebook.parent, config=sockets,
            )  # fmt: skip
        except papermill.PapermillExecutionError:
            return False
    return True


def of_check(notebooks: Iterable[Path], folder: Path) -> dict[Path, int | None]:
    """Return the number of the failing cell by notebook; None if it passed, 0 if none is named."""
    grid = check_grid(list(notebooks), parallel=2, deadline=60, folder=folder)
    return {
        each.check.notebook: None
        if each.passed
        else each.check.failing.number
        if each.check.failing
        else 0
        for each in grid
    }


def of_nbmake(folder: Path, environment: Mapping[str, str]) -> dict[Path, int | None]:
    """Run nbmake's items in *folder*; the result is that of `of_check`."""
    (folder / "pyproject.toml").write_text("[tool.mousetrap]\n[tool.pytest.ini_options]\n")
    report = folder / "junit.xml"
    subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--nbmake", "-q",
         f"--junitxml={report}", str(folder)],
        cwd=folder, env=os.environ | environment, capture_output=True, timeout=1500, check=False,
    )  # fmt: skip
    found: dict[Path, int | None] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        text = "".join(each.text or "" for each in case.iter("failure"))
        place = re.search(r"failed in cell (\d+)", text)
        found[folder / str(case.get("name"))] = int(place[1]) if place else 0 if len(case) else None
    return found
