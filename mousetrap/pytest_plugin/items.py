"""The pytest items of a notebook: one for each set of parameters, and one for marked functions.

A notebook with a table of sets has these items *instead of* nbmake's item, as a function with
``pytest.mark.parametrize`` has no run without parameters. To run it with its defaults, too, add an
empty set. An additional item of nbmake would run the notebook once more, and under weaker rules.

nbmake runs a notebook without a table; see `mousetrap.pytest_plugin.notebook_runtime`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mousetrap.check import check, executed_notebook
from mousetrap.check.drift import check_drift
from mousetrap.check.executed_notebook import default_output
from mousetrap.check.parameters import read_notebook
from mousetrap.check.safe_text import plain_text
from mousetrap.errors import CheckError, Drifted, SettingsError
from mousetrap.pytest_plugin.stash import TEST_NAMESPACE
from mousetrap.pytest_plugin.table import Plan, metadata_of, plan_of

PLAN = pytest.StashKey[Plan]()
USES_MOUSETRAP = pytest.StashKey[bool]()

PYTEST_TIMEOUT_MARGIN = 30.0  # seconds after the deadline in which a check ends its processes
MAX_SOURCE_LINES = 60  # of a cell's source, or of a traceback, in a report
_IMPORT = re.compile(r"\b(?:import|from)\s+mousetrap\b")
_SAME_AS = re.compile(r"#\s*same as\s+[\w.]+\s*:\s*[\w.]+")


def collectors(
    path: Path,
    parent: pytest.Collector,
    others: list[pytest.Collector],
    entries: dict[Path, dict[str, Any]] | None,
) -> list[pytest.Collector]:
    """Return the collectors for the notebook at *path*; *others* are those of other plugins.

    *entries* are those of pyproject.toml, None if it does not mention mousetrap.
    """
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    entry, metadata = (entries or {}).get(path.resolve(), {}), metadata_of(text)
    uses = entries is not None or bool(metadata) or _IMPORT.search(text) is not None
    problem, plan = "", Plan()
    if entry or metadata:
        try:
            plan = plan_of(entry, metadata, str(path))
        except SettingsError as error:
            problem = str(error)
    found = list(others)
    if problem or plan.sets is not None:  # nbmake would run it without parameters
        found = [each for each in others if not type(each).__module__.startswith("nbmake")]
    if problem or plan.sets is not None or _SAME_AS.search(text):
        ours = ChecksFile.from_parent(parent, path=path)
        ours.problem, ours.may_drift = problem, _SAME_AS.search(text) is not None
        found.append(ours)
    for collector in found:
        collector.stash[PLAN] = plan
        collector.stash[USES_MOUSETRAP] = uses
    return found


def needs_namespace(item: pytest.Item) -> bool:
    """Return whether *item* is a notebook that gets a broker and a namespace."""
    if isinstance(item, DriftItem) or item.parent is None:
        return False
    return item.parent.stash.get(USES_MOUSETRAP, False)


def deadline_of(item: pytest.Item) -> float:
    """Return the deadline of *item* in seconds: that of its notebook, or the default."""
    assert item.parent is not None
    given = item.parent.stash[PLAN].deadline
    return given or float(item.config.getini("mousetrap_deadline"))


def relative_path(path: Path) -> Path:
    """Return *path* relative to the current folder, if it is in it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


class ChecksFile(pytest.File):
    """A notebook with a table of parameters, or with marked functions."""

    problem = ""  # why its items cannot be determined
    may_drift = False

    def collect(self) -> Iterator[pytest.Item]:
        """Yield the items, in the order of the table."""
        if self.problem:
            raise self.CollectError(self.problem)
        if self.may_drift:
            yield DriftItem.from_parent(self, name="drift")
        for name, parameters in (self.stash[PLAN].sets or {}).items():
            yield CheckItem.from_parent(self, name=name, parameters=parameters)


class _NotebookItem(pytest.Item):
    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Return the error of the check; a traceback through mousetrap would not help."""
        if isinstance(excinfo.value, CheckError):
            return "\n".join(_explanation(excinfo.value))
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[os.PathLike[str], int | None, str]:
        """Return the notebook and the name, by which pytest selects and reports the item."""
        return self.path, None, f"{self.path.name}::{self.name}"


class DriftItem(_NotebookItem):
    """Compares marked functions with those of their package; starts no kernel."""

    def runtest(self) -> None:
        """Raise `Drifted` if a function differs."""
        check_drift(relative_path(self.path))


class CheckItem(_NotebookItem):
    """Runs the notebook with one set of parameters under the rules of `mousetrap.check`."""

    def __init__(self, *, parameters: Mapping[str, object], **rest: Any) -> None:
        super().__init__(**rest)
        self.parameters = parameters
        self.deadline = deadline_of(self)
        if self.config.pluginmanager.hasplugin("timeout"):
            # pytest-timeout does not name the cell, so the deadline must come first.
            self.add_marker(pytest.mark.timeout(self.deadline + PYTEST_TIMEOUT_MARGIN))

    def runtest(self) -> None:
        """Run the notebook; the executed copy is kept in every case."""
        test_namespace, path = self.stash[TEST_NAMESPACE], relative_path(self.path)
        output = default_output(path)
        check(
            path,
            self.parameters,
            output=output.with_name(f"{output.stem}.{self.name}{output.suffix}"),
            deadline=self.deadline,
            on_failure=test_namespace.capture_queues,
        )


def _explanation(error: CheckError) -> Iterator[str]:
    """Yield the error; if a cell failed, also its source and its traceback."""
    yield str(error)
    if error.output is None or isinstance(error, Drifted):
        return
    from mousetrap.check import read

    failing = read(error.output).failing
    if failing is None:
        return
    cell = executed_notebook.find_cell(read_notebook(error.output), failing)
    if cell is None:
        return
    yield f"\n--- cell {failing.number} " + "-" * 60
    yield plain_text(cell.source, MAX_SOURCE_LINES)
    for output in cell.outputs:
        if output.output_type == "error":
            yield "-" * 70
            yield plain_text("\n".join(output.traceback), MAX_SOURCE_LINES)
