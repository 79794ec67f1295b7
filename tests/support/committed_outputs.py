"""The solutions of a notebook's exercises, which run after its cells in the same kernel."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import nbformat

EXERCISES = "exercises"  # the id of their cell
SOLUTION = re.compile(
    r"<details><summary>Solution</summary>\n\n```python\n(.*?)\n```\n\n</details>", re.DOTALL
)


def solutions(notebook: Any) -> list[str]:
    """Return the code of the folded solutions."""
    cells = [cell for cell in notebook.cells if cell.get("id") == EXERCISES]
    return [solution for cell in cells for solution in SOLUTION.findall(cell.source)]


@contextmanager
def watched() -> Iterator[list[Any]]:
    """Let nbmake run the solutions, too; yield the executed notebooks, which gets one.

    nbmake has no hook for this; `mousetrap.pytest_plugin.notebook_runtime` uses the same way.
    """
    from nbmake import nb_run

    client = nb_run.NotebookClient
    executed = []

    def make_client(document: Any, **options: Any) -> Any:
        for n, source in enumerate(solutions(document), start=1):
            document.cells.append(nbformat.v4.new_code_cell(source, id=f"solution-{n}"))
        executed.append(document)
        return client(document, **options)

    nb_run.NotebookClient = make_client
    try:
        yield executed
    finally:
        nb_run.NotebookClient = client
    [document] = executed
    not_run = [cell.id for cell in document.cells if cell.get("execution_count", 0) is None]
    assert not_run == [], "these cells did not run"
