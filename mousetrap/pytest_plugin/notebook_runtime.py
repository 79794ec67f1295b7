"""A notebook as a guest: a room while it runs, a watch over its time, a report of its failure.

For the items with parameters `mousetrap.check` does most of it. nbmake runs its plain ones in
pytest's own process and limits the time of each cell; so here they get the rest from us: a
deadline, a look at the queues while the kernel lives, and a copy that is kept.
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
    """Give *item* a room by its environment, which kernels inherit when they start."""
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
    """Keep watch while nbmake runs *item* in this process."""
    look = item.stash[TEST_NAMESPACE].look
    item.stash[_DEADLINE_WATCH] = DeadlineWatch(
        deadline_of(item), os.environ[RUN_ID_VARIABLE], look
    )
    with item.stash[_DEADLINE_WATCH], _called_on_failure(look):
        yield


def add_to_report(
    item: pytest.Item, excinfo: pytest.ExceptionInfo[BaseException], report: pytest.TestReport
) -> None:
    """Add to the *report* of a failure what is known about it."""
    watch = item.stash.get(_DEADLINE_WATCH, None)
    if watch is not None and watch.time_is_up:
        report.longrepr = f"{item.path.name} {watch.explanation}\n{report.longrepr}"
    if item.path.suffix == ".ipynb" and not isinstance(item, CheckItem):  # whose error names it
        copy = _save_copy(item.path, excinfo)
        if copy is not None:
            report.sections.append(("executed copy", str(copy)))
    if not isinstance(excinfo.value, (ParameterError, Drifted)):  # no kernel was started
        report.sections.append(("queues", item.stash[TEST_NAMESPACE].queue_report))


class DeadlineWatch:
    """Ends the kernel of a notebook that is run in this process, and all it started, in time.

    Whatever bears *mark* in its environment is ended: at the deadline, after *look* was called and
    the cell was interrupted, and when the context is left. Entered once.

    Raises, when left:
        DeadlineExceeded: time was up, and the notebook went on as if nothing had happened.
    """

    def __init__(self, deadline: float, mark: str, look: Callable[[], object]) -> None:
        self.deadline = deadline
        self.time_is_up = False
        self._look = look
        self._processes = Descendants(None, mark)
        self._over = threads.Event()
        self._thread = threads.Thread(target=self._watch, name="mousetrap-watch", daemon=True)

    def __enter__(self) -> DeadlineWatch:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._processes.terminate(TERMINATE_TIMEOUT)
        if self.time_is_up and kind is None:
            raise DeadlineExceeded(self.explanation)

    @property
    def explanation(self) -> str:
        """What to say when time was up."""
        return (
            f"took longer than its deadline of {self.deadline:g} s\n"
            "Its kernel and all it had started were ended. Give it more time (ini option "
            "mousetrap_deadline, or its table in pyproject.toml), or look for what never ends"
        )

    def _watch(self) -> None:
        if self._over.wait(self.deadline):
            return
        self.time_is_up = True
        try:
            self._look()
        finally:
            self._processes.interrupt_children()
            if not self._over.wait(INTERRUPT_TIMEOUT):
                self._processes.terminate(TERMINATE_TIMEOUT)


@contextmanager
def _called_on_failure(look: Callable[[], object]) -> Iterator[None]:
    """Have *look* called when a cell has failed and its kernel still lives.

    nbmake has no hook for that; nbclient, which it calls, has. Should nbmake change, the look is
    taken when the kernel is gone, and shows no consumers.
    """
    from nbmake import nb_run

    client = getattr(nb_run, "NotebookClient", None)
    if client is None:
        yield
        return
    nb_run.NotebookClient = partial(client, on_cell_error=lambda **_: look())
    try:
        yield
    finally:
        nb_run.NotebookClient = client


def _save_copy(path: Path, excinfo: pytest.ExceptionInfo[BaseException]) -> Path | None:
    """Save what nbmake has in its hands when a notebook fails; None if that is nothing."""
    import nbformat

    result = excinfo.value.args[0] if excinfo.value.args else None
    document = getattr(result, "nb", None)
    if document is None:
        return None
    output = default_output(path)
    create_draft(output, nbformat.writes(document))  # type: ignore[no-untyped-call]  # half annotated
    return relative_path(output)
