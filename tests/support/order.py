"""Orders the test files so that parallel processes end at the same time.

With ``--dist loadfile`` a process takes the next file when it is free. If a file of minutes came
last, one process would run it while the others wait. So the longest files come first. Some of them
wait most of the time (for a broker that starts), others compute (a kernel, a browser): they are
mixed, so that the processor is busy all the time. ``deploy/test.py`` switches off xdist's own
order, which is by the number of tests.
"""

from __future__ import annotations

import zlib
from functools import cache
from pathlib import Path

from support.quick import TESTS

LONGEST_FIRST = (  # by measured durations; a folder stands for its files
    ("notebook/test_jupyterlab.py",),
    ("faults/test_faults_retry.py", "faults/test_faults_silence.py", "faults/test_faults_worker.py",
     "faults/test_faults_joins.py", "faults/test_faults_connection.py", "broker/test_docker.py",
     "runtime/test_interrupted_waits.py", "check/test_check_failures.py", "cli/test_termination.py",
     "project/test_notebooks.py", "runs/test_pipeline.py", "conformance/test_differential.py",
     "pytest_plugin/test_pytest_plugin.py", "notebook/test_browser.py"),
    ("faults", "../notebooks", "broker", "check", "pytest_plugin", "notebook", "runs", "cli"),
    ("worker", "project/test_benchmarks.py"),
)  # fmt: skip


def longest_first(items):
    """Sort *items* in place: the longest files first, the rest as they were."""
    items.sort(key=lambda item: _rank(item.path))


@cache  # there are twenty tests to a file
def _rank(path: Path) -> tuple[int, int]:
    """Return the place of a file: its group, and a number that mixes the files of a group."""
    for group, members in enumerate(LONGEST_FIRST):
        if any(path.is_relative_to((TESTS / each).resolve()) for each in members):
            return group, zlib.crc32(path.name.encode())
    return len(LONGEST_FIRST), 0
