"""The executed copy of a notebook: what papermill saves, what a check adds, how to read it back.

During the run the copy is a draft beside its final path. It is moved there when the run is over, so
that nothing can take an incomplete file for a result.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mousetrap.check.notebook_format import insert_cell, text_of
from mousetrap.check.parameters import parameters_in, read_notebook
from mousetrap.check.safe_text import plain_text
from mousetrap.display.formats import counted
from mousetrap.errors import CheckError, ParameterError
from mousetrap.model.summary import SUMMARY_TYPE
from mousetrap.runtime.atomic_file import write_atomically

_INJECTED = "injected-parameters"
_ERROR_TAG = "papermill-error-cell-tag"  # papermill's; its next run removes such cells
_TAGGED = {
    "raises-exception": "its tag raises-exception counts for nbmake and Jupyter, not for papermill "
    "and not here: catch the exception in the cell, with pytest.raises or except",
    "skip-execution": "its tag skip-execution counts for nbmake and papermill, not here: what did "
    "not run proves nothing, so delete the cell, or make it text",
}  # fmt: skip


@dataclass(frozen=True)
class FailingCell:
    """The cell because of which a notebook did not pass.

    `number` counts all cells of the source notebook from 1. `count` is that of its ``In [count]``,
    None if it never ran. `line` is its first line that is not a comment. `error` is the error, as
    in ``ValueError: no luck``.
    """

    number: int
    count: int | None
    line: str
    error: str


@dataclass(frozen=True)
class CheckResult:
    """The result of a run of a notebook.

    `cells` is how many code cells ran to their end, `seconds` how long the whole run took.
    `summary` is the last output of the type `SUMMARY_TYPE`. After a failure, which only `read` and
    `check_grid` return, `error` says what happened and `failing` in which cell.
    """

    notebook: Path
    output: Path
    parameters: Mapping[str, object] = field(default_factory=dict)
    seconds: float = 0.0
    cells: int = 0
    summary: dict[str, Any] | None = None
    failing: FailingCell | None = None
    error: str | None = None

    @property
    def passed(self) -> bool:
        """Whether all cells ran and none raised."""
        return self.error is None

    def __repr__(self) -> str:
        """Return whether it passed, and the size of the summary, which can be long."""
        fields = self.summary
        summary = "no summary" if fields is None else f"a summary of {len(fields)} fields"
        how = "passed" if self.passed else "failed"
        return (
            f"<CheckResult {self.notebook.name} {how}: {counted(self.cells, 'cell')} in "
            f"{self.seconds:.1f} s, {summary}>"
        )


def default_output(notebook: Path) -> Path:
    """Return the default path of the executed copy: ``notebooks/_build/check_x.ipynb``."""
    return notebook.parent / "_build" / notebook.name


def read(path: str | Path) -> CheckResult:
    """Read an executed copy, written by a check or by papermill itself.

    Raises:
        CheckError: there is no such file, or it is not a notebook.
    """
    path = Path(path)
    document = read_notebook(path)
    ours = document.metadata.get("mousetrap", {})
    theirs = document.metadata.get("papermill", {})
    failing = FailingCell(**ours["failing"]) if ours.get("failing") else failing_cell(document)
    parameters = defaults_of(document, path) | dict(theirs.get("parameters") or {})
    return CheckResult(
        notebook=Path(ours.get("notebook") or theirs.get("input_path") or path),
        output=path,
        parameters=parameters,
        seconds=float(ours.get("seconds") or theirs.get("duration") or 0.0),
        cells=cells_done(document, failing),
        summary=summary_in(document),
        failing=failing,
        error=ours.get("error") or (f"cell {failing.number}: {failing.error}" if failing else None),
    )


def defaults_of(document: Any, path: Path) -> dict[str, object]:
    """Return the defaults of the parameters; empty if there are none, or they cannot be read."""
    try:
        return {each.name: each.default for each in parameters_in(document, path) or []}
    except ParameterError:
        return {}


def runnable_cells(document: Any) -> Iterator[tuple[int, int, Any]]:
    """Yield the code cells that are not empty: index, number in the source notebook, cell.

    The cell in which papermill sets the parameters has the number of the cell before it.
    """
    number = 0
    for index, cell in enumerate(document.cells):
        tags = cell.metadata.get("tags", [])
        if _ERROR_TAG in tags:
            continue  # papermill inserted it
        number += _INJECTED not in tags
        if cell.cell_type == "code" and cell.source.strip():
            yield index, max(number, 1), cell


def code_cells(document: Any) -> Iterator[tuple[int, int, Any]]:
    """Yield the same as `runnable_cells`, without the cell that papermill inserted."""
    for index, number, cell in runnable_cells(document):
        if _INJECTED not in cell.metadata.get("tags", []):
            yield index, number, cell


def cells_done(document: Any, failing: FailingCell | None) -> int:
    """Return how many code cells ran to their end."""
    # A cell that ends the kernel has a count and no error.
    stopped = None if failing is None else failing.number
    return sum(
        cell.execution_count is not None and number != stopped
        for _, number, cell in code_cells(document)
    )


def failing_cell(document: Any) -> FailingCell | None:
    """Return the first code cell that raised or never ran; None if there is none.

    For papermill ``raise SystemExit(0)`` is a success, although it skips the cells after it. Here
    it is a failure.
    """
    for _, number, cell in runnable_cells(document):
        errors = _errors(cell)
        if errors:
            return _failing(number, cell, f"{errors[0].ename}: {errors[0].evalue}{_tagged(cell)}")
        if cell.metadata.get("papermill", {}).get("exception") is True:
            return _failing(number, cell, "it raised an error that it does not show")
        if cell.execution_count is None:
            return _failing(number, cell, f"it never ran{_tagged(cell)}")
    return None


def cell_named(document: Any, number: int, error: str) -> FailingCell | None:
    """Return cell *number* as the failing cell, with an *error* that is not among its outputs."""
    for _, each, cell in code_cells(document):
        if each == number:
            return _failing(number, cell, error)
    return None


def find_cell(document: Any, failing: FailingCell) -> Any:
    """Return the cell of *document* that is *failing*; None if it is not there."""
    for _, number, cell in runnable_cells(document):
        if number == failing.number and first_line(cell) == failing.line:
            return cell
    return None


def summary_in(document: Any) -> dict[str, Any] | None:
    """Return the last summary of a run that a cell displayed."""
    found = None
    for cell in document.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {}).get(SUMMARY_TYPE)
            if isinstance(data, dict):
                found = data
    # As plain dicts: those of nbformat have attribute access, which hides misspelt keys.
    return None if found is None else dict(json.loads(json.dumps(found)))


def create_draft(path: Path, text: str) -> None:
    """Create the draft of the executed copy; only its owner can read it.

    Raises:
        CheckError: the folder cannot be created or written.
    """
    make_folder(path.parent)
    try:
        write_atomically(path, text)
    except OSError as error:
        raise CheckError(f"the executed copy cannot be written to {path.parent}: {error}") from None


def make_folder(folder: Path) -> None:
    """Create the folder for executed copies, with a .gitignore in a new ``_build``.

    Raises:
        CheckError: the folder cannot be created.
    """
    try:
        for build in (folder, folder.parent):
            if build.name == "_build" and not build.exists():
                build.mkdir(parents=True)
                ignored = "# executed copies: results, not sources\n*\n"
                write_atomically(build / ".gitignore", ignored)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckError(f"the executed copy cannot be written to {folder}: {error}") from None


def finish(draft: Path, output: Path, facts: Mapping[str, Any]) -> str:
    """Move *draft* to *output*, with *facts* in its metadata and, after a failure, a note on top.

    Returns why the facts could not be written; empty if they were. Without them the copy has the
    cells as papermill last saved them, and for `read` a cell that never ran is a failure.
    """
    import nbformat

    document = read_notebook(draft)
    document.metadata["mousetrap"] = dict(facts)
    if "papermill" in document.metadata:
        document.metadata.papermill["output_path"] = str(output)
    if facts.get("error"):
        if document.cells and _ERROR_TAG in document.cells[0].metadata.get("tags", []):
            del document.cells[0]  # papermill's note says less
        note = nbformat.v4.new_markdown_cell(f"**This run failed.**\n\n```\n{facts['error']}\n```")  # type: ignore[no-untyped-call]  # half annotated
        note.metadata["tags"] = [_ERROR_TAG]
        insert_cell(document, 0, note)
    reason = ""
    try:
        write_atomically(draft, text_of(document))
    except OSError as error:
        reason = save_error(output, error)
    draft.replace(output)
    return reason


def save_error(output: Path, error: OSError) -> str:
    """Return the text for an executed copy that could not be saved."""
    return f"the executed copy {output} cannot be saved completely: {error.strerror or error}"


def first_line(cell: Any) -> str:
    """Return the first line of a code cell that is not a comment, cut to 80 characters."""
    lines = [line.strip() for line in cell.source.splitlines() if line.strip()]
    return plain_text(next((line for line in lines if not line.startswith("#")), lines[0]))[:80]


def _failing(number: int, cell: Any, error: str) -> FailingCell:
    return FailingCell(number, cell.execution_count, first_line(cell), plain_text(error))


def _errors(cell: Any) -> list[Any]:
    return [output for output in cell.get("outputs", []) if output.output_type == "error"]


def _tagged(cell: Any) -> str:
    """Return the note on a tag of *cell* that other programs obey and a check does not."""
    tags = cell.metadata.get("tags", [])
    return "".join(f" ({note})" for tag, note in _TAGGED.items() if tag in tags)
