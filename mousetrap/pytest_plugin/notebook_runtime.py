"""What a notebook gets while it runs as a test: a namespace, a deadline, a report of its failure.

For items with parameters `mousetrap.check` does most of this. nbmake runs its items in pytest's own
process and limits only the time of each cell. So this module adds a deadline, the queue report
while the kernel still runs, and an executed copy that is kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from mousetrap.check.descendants import (
    INTERRUPT_TIMEOUT,
    RUN_ID_VARIABLE,
    TERMINATE_TIMEOUT,
    Descendants,
)
from mousetrap.check.executed_notebook import create_draft, default_output
from mousetrap.errors import DeadlineExceeded, Drifted, MousetrapError, ParameterError
from mousetrap.pytest_plugin.items import CheckItem, deadline_of, relative_path
from mousetrap.pytest_plugin.session_broker import session_broker
from mousetrap.pytest_plugin.stash import NAMESPACE_ERROR, TEST_NAMESPACE
from mousetrap.pytest_plugin.test_namespace import TestNamespace
from mousetrap.runtime import randomness, threads

_DEADLINE_WATCH = pytest.StashKey["DeadlineWatch"]()


@contextmanager
def notebook_namespace(item: pytest.Item) -> Iterator[None]:
    """Give *item* a namespace in the environment, which kernels inherit when they start."""
    try:
        broker = session_broker(item.config).broker()
    except MousetrapError as error:
        item.stash[NAMESPACE_ERROR] = f"no broker: {error}"
        yield
        return
    with TestNamespace(
        broker, item.path.stem, {RUN_ID_VARIABLE: randomness.new_id()}
    ) as test_namespace:
        item.stash[TEST_NAMESPACE] = test_namespace
        yield


@contextmanager
def deadline_watch(item: pytest.Item) -> Iterator[None]:
    """Limit the time of *item* while nbmake runs it in this process."""
    capture = item.stash[TEST_NAMESPACE].capture_queues
    item.stash[_DEADLINE_WATCH] = DeadlineWatch(
        deadline_of(item), os.environ[RUN_ID_VARIABLE], capture
    )
    with item.stash[_DEADLINE_WATCH], _called_on_failure(capture):
        yield


def add_to_report(
    item: pytest.Item, excinfo: pytest.ExceptionInfo[BaseException], report: pytest.TestReport
) -> None:
    """Add the deadline, the executed copy and the queues to the *report* of a failure."""
    watch = item.stash.get(_DEADLINE_WATCH, None)
    if watch is not None and watch.time_is_up:
        report.longrepr = f"{item.path.name} {watch.explanation}\n{report.longrepr}"
    if item.path.suffix == ".ipynb" and not isinstance(item, CheckItem):  # its error names the copy
        copy = _save_copy(item.path, excinfo)
        if copy is not None:
            report.sections.append(("executed copy", str(copy)))
    if not isinstance(excinfo.value, (ParameterError, Drifted)):  # no kernel was started
        report.sections.append(("queues", item.stash[TEST_NAMESPACE].queue_report))


class DeadlineWatch:
    """Ends the kernel of a notebook that runs in this process, and its child processes, in time.

    The processes are those whose `RUN_ID_VARIABLE` is *run_id*. They are ended when the context is
    left, and at the deadline, after *on_deadline* was called and the cell was interrupted. The
    context can be entered once.

    Raises:
        DeadlineExceeded: on exit, if the deadline has passed and the notebook raised no error.
    """

    def __init__(self, deadline: float, run_id: str, on_deadline: Callable[[], object]) -> None:
        self.deadline = deadline
        self.time_is_up = False
        self._on_deadline = on_deadline
        self._processes = Descendants(None, run_id)
        self._finished = threads.Event()
        self._thread = threads.Thread(target=self._watch, name="mousetrap-deadline", daemon=True)

    def __enter__(self) -> DeadlineWatch:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._finished.set()
        self._thread.join()
        self._processes.terminate(TERMINATE_TIMEOUT)
        if self.time_is_up and kind is None:
            raise DeadlineExceeded(self.explanation)

    @property
    def explanation(self) -> str:
        """The text for a notebook that took longer than its deadline."""
        return (
            f"took longer than its deadline of {self.deadline:g} s\n"
            "Its kernel and all processes that it had started were ended. Set a longer deadline "
            "(ini option mousetrap_deadline, or its table in pyproject.toml), or find out what "
            "does not end"
        )

    def _watch(self) -> None:
        if self._finished.wait(self.deadline):
            return
        self.time_is_up = True
        try:
            self._on_deadline()
        finally:
            self._processes.interrupt_children()
            if not self._finished.wait(INTERRUPT_TIMEOUT):
                self._processes.terminate(TERMINATE_TIMEOUT)


@contextmanager
def _called_on_failure(on_failure: Callable[[], object]) -> Iterator[None]:
    """Call *on_failure* when a cell has failed, while its kernel still runs.

    nbmake has no hook for this, but nbclient, which it uses, has one. If nbmake changes, the queues
    are captured after the kernel has ended, and the report shows no consumers.
    """
    from nbmake import nb_run

    client = getattr(nb_run, "NotebookClient", None)
    if client is None:
        yield
        return
    nb_run.NotebookClient = partial(client, on_cell_error=lambda **_: on_failure())
    try:
        yield
    finally:
        nb_run.NotebookClient = client


def _save_copy(path: Path, excinfo: pytest.ExceptionInfo[BaseException]) -> Path | None:
    """Save the executed notebook that nbmake's error contains; None if it contains none."""
    import nbformat

    result = excinfo.value.args[0] if excinfo.value.args else None
    document = getattr(result, "nb", None)
    if document is None:
        return None
    output = default_output(path)
    create_draft(output, nbformat.writes(document))  # type: ignore[no-untyped-call]  # half annotated
    return relative_path(output)
