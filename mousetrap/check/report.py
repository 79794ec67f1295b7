"""Writes the report about a grid: a page for people, a JSON file, and JUnit XML for CI."""

from __future__ import annotations

import json

from mousetrap.check.junit import junit
from mousetrap.check.page import report_page
from mousetrap.check.results import JUNIT_FILE, PAGE_FILE, RESULTS_FILE, GridResult
from mousetrap.errors import CheckError
from mousetrap.runtime.atomic_file import write_atomically


def write_report(grid: GridResult) -> None:
    """Write ``index.html``, ``results.json`` and ``junit.xml`` into the grid's folder.

    Each file is written atomically, and only its owner can read it, as for the executed copies.

    Raises:
        CheckError: the folder cannot be written.
    """
    texts = {
        RESULTS_FILE: json.dumps(grid.as_dict(), indent=1, allow_nan=False) + "\n",
        JUNIT_FILE: junit(grid),
        PAGE_FILE: report_page(grid),  # last, because it links to the others
    }
    try:
        for name, text in texts.items():
            write_atomically(grid.folder / name, text)
    except OSError as error:
        raise CheckError(f"the report cannot be written to {grid.folder}: {error}") from None
