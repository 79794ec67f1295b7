"""Writes notebook files that a test checks."""

from __future__ import annotations

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

WAIT_FOREVER = "import threading\nthreading.Event().wait()"
"""A cell that does not end."""


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
