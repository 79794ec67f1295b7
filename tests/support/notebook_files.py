"""Writes notebook files that a test checks."""

from __future__ import annotations

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

WAIT_FOREVER = "import threading\nthreading.Event().wait()"
"""A cell that does not end."""

# A worker that cannot be found by process group, parent or environment.
START_DETACHED = """\
import subprocess, sys
from pathlib import Path
worker = subprocess.Popen(["sleep", "600"], start_new_session=True, env={})
Path("worker.pid").write_text(str(worker.pid))
"""


def write_notebook(path, *cells, parameters=None, kernel=None):
    """Write a notebook and return its path: parameters if given, a title, then the code cells."""
    document = new_notebook()
    if parameters is not None:
        cell = new_code_cell(parameters)
        cell.metadata["tags"] = ["parameters"]
        document.cells.append(cell)
    document.cells.append(new_markdown_cell("# Does it work?"))
    document.cells += [new_code_cell(cell) for cell in cells]
    if kernel is not None:
        document.metadata["kernelspec"] = {"name": kernel, "display_name": kernel}
    nbformat.write(document, path)
    return path


def names_in(folder):
    """Return the names of the files in *folder*, sorted."""
    return sorted(path.name for path in folder.iterdir())
