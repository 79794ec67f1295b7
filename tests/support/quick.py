"""Sets the marker `quick`, which ``python3 deploy/test.py --quick`` runs.

A test is quick unless it uses a fixture of `SLOW_FIXTURES`, has a marker of `SLOW_MARKERS`, or is
in `SLOW_PATHS`: a folder or a file whose tests start kernels, worker processes or servers, or wait
for seconds. So a new test is quick until it is named here; ``--durations`` shows the slow ones. In
the conformance tests only the embedded broker is quick.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

SLOW_FIXTURES = {"kernel", "start_kernel", "page", "node", "rabbit", "worker_pool"}
SLOW_MARKERS = {"browser", "docker", "local", "long"}
SLOW_PATHS = (
    "broker",
    "check/test_check.py",
    "check/test_check_failures.py",
    "check/test_check_progress.py",
    "check/test_defects.py",
    "check/test_executed_notebook.py",
    "check/test_grid.py",
    "cli",
    "conformance/test_clients.py",
    "conformance/test_differential.py",
    "embedded_broker/test_fuzz.py",
    "embedded_broker/test_server.py",
    "fault_injection/test_injector.py",
    "fault_injection/test_proxy.py",
    "faults",
    "flows/test_call.py",
    "flows/test_delayed.py",
    "notebook/test_handle.py",
    "notebook/test_live.py",
    "notebook/test_panel.py",
    "notebook/test_registry.py",
    "project/test_benchmarks.py",
    "project/test_coming_from.py",
    "project/test_documentation.py",
    "project/test_notebooks.py",
    "project/test_readme.py",
    "project/test_readme_blocks.py",
    "project/test_recipes.py",
    "project/test_wheel.py",
    "project/test_workflows.py",
    "pytest_plugin",
    "runs",
    "runtime/test_interrupt.py",
    "runtime/test_interrupted_waits.py",
    "runtime/test_signals.py",
    "scaffold",
    "sink/test_postgresql.py",
    "sink/test_results_sink.py",
    "test_doctor.py",
    "test_extract.py",
    "test_tutorial.py",
    "worker/test_captured_output.py",
    "worker/test_consumer_discovery.py",
    "worker/test_supervisor.py",
    "worker/test_worker.py",
    "worker/test_worker_poison_messages.py",
)


def mark_quick(items):
    """Give the quick ones of *items* the marker."""
    for item in items:
        if is_quick(item):
            item.add_marker(pytest.mark.quick)


def is_quick(item: pytest.Item) -> bool:
    """Return whether `--quick` runs the test."""
    target = getattr(getattr(item, "callspec", None), "params", {}).get("target", "embedded")
    return (
        target == "embedded"
        and _is_quick_file(item.path)
        and not SLOW_FIXTURES & set(getattr(item, "fixturenames", ()))
        and not SLOW_MARKERS & {marker.name for marker in item.iter_markers()}
    )


@cache  # there are twenty tests to a file
def _is_quick_file(path: Path) -> bool:
    if not path.is_relative_to(TESTS):  # a notebook
        return False
    path = path.relative_to(TESTS)
    return not any(path.is_relative_to(each) for each in SLOW_PATHS)
