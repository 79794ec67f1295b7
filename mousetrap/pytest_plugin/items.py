"""The tests that a notebook becomes: one for each set of parameters, one for what may drift.

A notebook with a table of sets yields its items *instead of* nbmake's plain one, as a function with
``pytest.mark.parametrize`` has no run without parameters; whoever wants that, too, adds an empty
set. A plain run besides would be the longest notebook once more, and under laxer rules.

Notebooks without a table stay nbmake's own; see `mousetrap.pytest_plugin.notebook_runtime`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mousetrap.check import check
from mousetrap.check.drift import check_drift
from mousetrap.check.executed_notebook import default_output
from mousetrap.check.parameters import read_notebook
from mousetrap.check.safe_text import plain_text
from mousetrap.errors import CheckError, Drifted, SettingsError
from mousetrap.pytest_plugin.stash import TEST_NAMESPACE
from mousetrap.pytest_plugin.table import Plan, metadata_of, plan_of

PLAN = pytest.StashKey[Plan]()
USES_MOUSETRAP = pytest.StashKey[bool]()

PYTEST_TIMEOUT_MARGIN = (
    30.0  # seconds past the deadline until pytest-timeout may step in: to end, look, clean up
)
MAX_SOURCE_LINES = 60  # of a cell's source, or of a traceback, in a report
_IMPORT = re.compile(r"\b(?:import|from)\s+mousetrap\b")
_MARK = re.compile(r"#\s*same as\s+[\w.]+\s*:\s*[\w.]+")


def collectors(
    path: Path,
    parent: pytest.Collector,
    others: list[pytest.Collector],
    entries: dict[Path, dict[str, Any]] | None,
) -> list[pytest.Collector]:
    """Return the collectors for the notebook at *path*, given those of *others*, nbmake's first.

    *entries* are those of pyproject.toml, None if mousetrap is not mentioned there.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    entry, metadata = (entries or {}).get(path.resolve(), {}), metadata_of(text)
    uses = entries is not None or bool(metadata) or _IMPORT.search(text) is not None
    problem, plan = "", Plan()
    if entry or metadata:
        try:
            plan = plan_of(entry, metadata, str(path))
        except SettingsError as error:
            problem = str(error)
    found = list(others)
    if problem or plan.sets is not None:  # nbmake's own would run it as if nothing had been said
        found = [each for each in others if not type(each).__module__.startswith("nbmake")]
    if problem or plan.sets is not None or _MARK.search(text):
        ours = ChecksFile.from_parent(parent, path=path)
        ours.problem, ours.may_drift = problem, _MARK.search(text) is not None
        found.append(ours)
    for collector in found:
        collector.stash[PLAN] = plan
        collector.stash[USES_MOUSETRAP] = uses
    return found


def needs_namespace(item: pytest.Item) -> bool:
    """Tell whether *item* is a notebook that gets a broker and a namespace."""
    if isinstance(item, DriftItem) or item.parent is None:
        return False
    return item.parent.stash.get(USES_MOUSETRAP, False)


def deadline_of(item: pytest.Item) -> float:
    """Return the seconds that the notebook of *item* has: its own, or the default."""
    assert item.parent is not None
    given = item.parent.stash[PLAN].deadline
    return given or float(item.config.getini("mousetrap_deadline"))


def relative_path(path: Path) -> Path:
    """Return *path* as people would type it here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


class ChecksFile(pytest.File):
    """A notebook with a table of parameters, or with functions that must not drift."""

    problem = ""  # why there is no telling which items it has
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
        """Say it in the words of the check, which has them all; a traceback of ours is no help."""
        if isinstance(excinfo.value, CheckError):
            return "\n".join(_explained(self.path, excinfo.value))
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[os.PathLike[str], int | None, str]:
        """Where it is, for those who select and report."""
        return self.path, None, f"{self.path.name}::{self.name}"


class DriftItem(_NotebookItem):
    """Compares what the notebook says is the package's; starts no kernel."""

    def runtest(self) -> None:
        """Raise `Drifted` if they differ."""
        check_drift(relative_path(self.path))


class CheckItem(_NotebookItem):
    """Runs the notebook with one set of parameters under the rules of `mousetrap.check`."""

    def __init__(self, *, parameters: Mapping[str, object], **rest: Any) -> None:
        super().__init__(**rest)
        self.parameters = parameters
        self.deadline = deadline_of(self)
        if self.config.pluginmanager.hasplugin("timeout"):
            # pytest-timeout kills without a word about the cell, so the deadline comes first.
            self.add_marker(pytest.mark.timeout(self.deadline + PYTEST_TIMEOUT_MARGIN))

    def runtest(self) -> None:
        """Run it; the executed copy is kept in any case."""
        test_namespace, path = self.stash[TEST_NAMESPACE], relative_path(self.path)
        output = default_output(path)
        check(
            path,
            self.parameters,
            output=output.with_name(f"{output.stem}.{self.name}{output.suffix}"),
            deadline=self.deadline,
            on_failure=test_namespace.look,
        )


def _explained(path: Path, error: CheckError) -> Iterator[str]:
    """The error, and if a cell failed its source and what it said."""
    yield str(error)
    if error.output is None or isinstance(error, Drifted):
        return
    from mousetrap.check import read

    failing = read(error.output).failing
    if failing is None:
        return
    source = read_notebook(path).cells[failing.number - 1].source
    yield f"\n--- cell {failing.number} " + "-" * 60
    yield plain_text(source, MAX_SOURCE_LINES)
    for said in _tracebacks(read_notebook(error.output), source):
        yield "-" * 70
        yield plain_text(said, MAX_SOURCE_LINES)


def _tracebacks(document: Any, source: str) -> Iterator[str]:
    for cell in document.cells:
        if cell.cell_type == "code" and cell.source == source:
            for output in cell.outputs:
                if output.output_type == "error":
                    yield "\n".join(output.traceback)
