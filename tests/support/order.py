"""Puts the files with the longest tests first, so that parallel processes end at the same time.

With ``--dist loadfile`` a process takes the next file when it is free. If a file of minutes came
last, one process would run it while the others wait. ``deploy/test.py`` therefore switches off
xdist's own order, which is by the number of tests.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from support.quick import TESTS

LONGEST_FIRST = (  # below tests/, by measured durations; a folder stands for its files
    "notebook/test_jupyterlab.py",
    "runtime/test_interrupted_waits.py",
    "check/test_check_failures.py",
    "faults",
    "cli/test_termination.py",
    "broker",
    "check",
    "pytest_plugin",
    "notebook",
    "project/test_notebooks.py",
    "conformance/test_differential.py",
    "runs",
    "cli",
    "worker",
)


def longest_first(items):
    """Sort *items* in place: notebooks and the longest files first, the rest as they were."""
    items.sort(key=lambda item: _rank(item.path))


@cache  # there are twenty tests to a file
def _rank(path: Path) -> int:
    if not path.is_relative_to(TESTS):
        return 1  # a notebook: only JupyterLab's tests take longer
    path = path.relative_to(TESTS)
    for rank, each in enumerate(LONGEST_FIRST):
        if path.is_relative_to(each):
            return 2 * rank
    return 2 * len(LONGEST_FIRST)
