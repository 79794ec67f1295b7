"""What a notebook gets while it runs as a test: a namespace, a deadline, a report of its failure.

For items with parameters `mousetrap.check` does most of this. nbmake runs its items in pytest's own
process and limits only the time of each cell. So this module adds a deadline, the queue report
while the kernel still runs, and an executed copy that is kept.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mousetrap.check.descendants import (
    INTERRUPT_TIMEOUT,
    RUN_ID_VARIABLE,
    TERMINATE_TIMEOUT,
    Descendants,
)
from mousetrap.check.executed_notebook import create_draft, default_output, first_line
from mousetrap.check.kernel_reply import show_failure
from mousetrap.check.kernel_sockets import kernel_sockets, language_of
from mousetrap.errors import CheckFailed, DeadlineExceeded, Drifted, MousetrapError, ParameterError
from mousetrap.pytest_plugin.items import CheckItem, deadline_of, relative_path
from mousetrap.pytest_plugin.session_broker import session_broker
from mousetrap.pytest_plugin.stash import NAMESPACE_ERROR, TEST_NAMESPACE
from mousetrap.pytest_plugin.test_namespace import TestNamespace
from mousetrap.runtime import randomness, threads

_DEADLINE_WATCH = pytest.StashKey["DeadlineWatch"]()
_NBMAKE_RUN = pytest.StashKey["NbmakeRun"]()
_STARTED = "iopub.execute_input"  # in a cell's metadata: when the kernel began it


@contextmanager
def notebook_namespace(item: pytest.Item) -> Iterator[None]:
    """Give *item* a namespace in the environment, which kernels inherit when they start."""
    try:
        broker = session_broker(item.config).broker()
    except MousetrapError as error:
        item.stash[NAMESPACE_ERROR] = f"no broker: {error}"
        yield
        return
    variables = {RUN_ID_VARIABLE: randomness.new_id(), **_import_path(item.config)}
    with TestNamespace(broker, item.path.stem, variables) as test_namespace:
        item.stash[TEST_NAMESPACE] = test_namespace
        yield


def _import_path(config: pytest.Config) -> dict[str, str]:
    """Return the variable by which kernels import from the folders of pytest's own `pythonpath`."""
    folders = [str(each) for each in config.getini("pythonpath")]
    if not folders:
        return {}
    return {"PYTHONPATH": os.pathsep.join(filter(None, [*folders, os.environ.get("PYTHONPATH")]))}


@contextmanager
def deadline_watch(item: pytest.Item) -> Iterator[None]:
    """Limit the time of *item* while nbmake runs it in this process."""
    capture = item.stash[TEST_NAMESPACE].capture_queues
    item.stash[_DEADLINE_WATCH] = DeadlineWatch(
        deadline_of(item), os.environ[RUN_ID_VARIABLE], capture
    )
    item.stash[_NBMAKE_RUN] = NbmakeRun(capture)
    with item.stash[_DEADLINE_WATCH], item.stash[_NBMAKE_RUN].watched():
        yield


def add_to_report(
    item: pytest.Item, excinfo: pytest.ExceptionInfo[BaseException], report: pytest.TestReport
) -> None:
    """Add the deadline, the executed copy and the queues to the *report* of a failure."""
    watch = item.stash.get(_DEADLINE_WATCH, None)
    if watch is not None and watch.time_is_up:
        report.longrepr = f"{item.path.name} {watch.explanation}\n{report.longrepr}"
    elif (run := item.stash.get(_NBMAKE_RUN, None)) is not None and (place := run.place()):
        report.longrepr = f"{item.path.name} failed in {place}\n{report.longrepr}"
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


class NbmakeRun:
    """The run of a notebook by nbmake: which cell failed, according to the kernel's replies.

    nbmake recognises a failure by the cell's error output, and a failed cell can have none. nbmake
    has no hook for this, but nbclient, which it uses, has one. By the same way the kernel gets
    sockets of its own: kernels that start at the same time can get the same port. If nbmake
    changes, failures are again what nbmake says, and the queues are captured after the kernel has
    ended.
    """

    def __init__(self, on_failure: Callable[[], object]) -> None:
        self._on_failure = on_failure
        self._document: Any = None
        self._begun: list[int] = []  # the indexes of the cells that were sent to the kernel

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch the run that nbmake makes in this context.

        Raises:
            CheckFailed: on exit: a cell did not run, and nbmake has not noticed.
        """
        from nbmake import nb_run

        client = getattr(nb_run, "NotebookClient", None)
        if client is None:
            yield
            return

        with tempfile.TemporaryDirectory(prefix="mousetrap-", ignore_cleanup_errors=True) as folder:

            def make_client(document: Any, **options: Any) -> Any:
                self._document = document
                config = kernel_sockets(Path(folder), language_of(document))
                hooks = {
                    "on_cell_error": self._on_cell_error,
                    "on_cell_execute": self._on_cell_begun,
                }
                return client(document, config=config, **hooks, **options)

            nb_run.NotebookClient = make_client
            try:
                yield
            finally:
                nb_run.NotebookClient = client
        if place := self._refused_cell():
            raise CheckFailed(
                f"the kernel did not run {place}: a cell before it failed without an error output"
            )

    def place(self) -> str:
        """Return the cell in which the run ended: ``cell 3 (In [2]): job(1)``; empty before it."""
        return _place(self._document, self._begun[-1]) if self._begun else ""

    def _on_cell_begun(self, cell: Any, cell_index: int) -> None:  # noqa: ARG002 -- nbclient's names
        self._begun.append(cell_index)

    def _on_cell_error(self, cell: Any, cell_index: int, execute_reply: Any) -> None:  # noqa: ARG002 -- as above
        show_failure(execute_reply["content"], cell)
        self._on_failure()

    def _refused_cell(self) -> str:
        """Return the cell that the kernel did not begin: it aborts what waits after an error."""
        cells = [self._document.cells[index] for index in self._begun]
        begun = [_STARTED in cell.metadata.get("execution", {}) for cell in cells]
        if not any(begun) or all(begun):  # none: nbmake no longer records the times
            return ""
        return _place(self._document, self._begun[begun.index(False)])


def _place(document: Any, index: int) -> str:
    cell = document.cells[index]
    count = "" if cell.execution_count is None else f" (In [{cell.execution_count}])"
    return f"cell {index + 1}{count}: {first_line(cell)}"


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
