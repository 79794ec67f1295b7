"""The outputs of the notebooks to read: run, compared with what is committed, and refreshed.

nbmake executes a notebook (`notebooks/conftest.py` watches it), so nothing runs twice. After the
cells the solutions of the exercises run in the same kernel. Then the outputs are compared by the
rules of `support.output_rules`. ``python tests/make_outputs.py`` writes those that differ.
"""

from __future__ import annotations

import base64
import copy
import io
import json
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat

from support.output_rules import ONLY_RABBITMQ, VOLATILE, committed, normalised

REFRESH = "REFRESH_OUTPUTS"  # the environment variable: "1" writes what differs, "all" all outputs
EXERCISES = "exercises"  # the id of their cell
SOLUTION = re.compile(
    r"<details><summary>Solution</summary>\n\n```python\n(.*?)\n```\n\n</details>", re.DOTALL
)
MAX_DISTANCE = 4.0  # mean difference of two pictures' pixels, of 255: another font is about 1
PICTURE = "image/png"
DATA_URI = re.compile(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)")


def solutions(notebook: Any) -> list[str]:
    """Return the code of the folded solutions."""
    cells = [cell for cell in notebook.cells if cell.get("id") == EXERCISES]
    return [solution for cell in cells for solution in SOLUTION.findall(cell.source)]


@contextmanager
def watched(path: Path) -> Iterator[None]:
    """Let nbmake run the solutions, too, and compare or refresh the outputs of *path*.

    nbmake has no hook for this; `mousetrap.pytest_plugin.notebook_runtime` uses the same way.

    Raises:
        NotebookFailedException: a cell did not run, or its output is not the committed one.
    """
    from nbmake import nb_run
    from nbmake.nb_result import NotebookError, NotebookResult
    from nbmake.pytest_items import NotebookFailedException

    client = nb_run.NotebookClient
    executed: list[Any] = []

    def make_client(document: Any, **options: Any) -> Any:
        for n, source in enumerate(solutions(document), start=1):
            document.cells.append(nbformat.v4.new_code_cell(source, id=f"solution-{n}"))
        executed.append(document)
        return client(document, **options)

    nb_run.NotebookClient = make_client
    try:
        yield
    finally:
        nb_run.NotebookClient = client
    [document] = executed
    found = [f"the cell {cell.id!r} did not run" for cell in document.cells
             if cell.get("execution_count", 0) is None]  # fmt: skip
    fresh = cleaned(document)
    if (refresh := os.environ.get(REFRESH)) and not found:
        write(path, fresh, keeps_equal=refresh != "all")
        return
    found += differences(nbformat.read(path, as_version=4), fresh)
    if found:
        text = "\n\n".join([*found, "python tests/make_outputs.py refreshes the outputs"])
        error = NotebookError(found[0].partition("\n")[0], text, -1)
        raise NotebookFailedException(NotebookResult(document, error))


def cleaned(document: Any) -> Any:
    """Return the executed notebook without solutions and times, as it can be committed."""
    document = copy.deepcopy(document)
    document.cells = [each for each in document.cells if not each.id.startswith("solution-")]
    for cell in document.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [_hidden(output) for output in joined(cell.outputs)]
    return document


def joined(outputs: list[Any]) -> list[Any]:
    """Return *outputs* with all text of one stream in one piece, before the others."""
    names = dict.fromkeys(each.name for each in outputs if each.output_type == "stream")
    streams = [
        nbformat.v4.new_output(
            "stream", name=name, text="".join(e.text for e in outputs if e.get("name") == name)
        )
        for name in names
    ]
    return [*streams, *(each for each in outputs if each.output_type != "stream")]


def differences(before: Any, fresh: Any) -> list[str]:
    """Return a paragraph for each cell whose *fresh* output is not the one *before*."""
    is_full = _has_management(fresh)
    outputs = {cell.id: cell for cell in before.cells}
    found = []
    for cell in fresh.cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type != "code" or (ONLY_RABBITMQ in tags and not is_full):
            continue
        had = outputs[cell.id].outputs
        if VOLATILE in tags:
            had, has = _kinds(had), _kinds(cell.outputs)
        else:
            had, has = (comparable(each, tags) for each in (had, cell.outputs))
        if not _is_same(had, has):
            found.append(f"the output of the cell {cell.id!r} was\n  {had}\nand is now\n  {has}")
    return found


def write(path: Path, fresh: Any, *, keeps_equal: bool = True) -> None:
    """Write the outputs of *fresh* into the notebook at *path*; with *keeps_equal* what differs."""
    assert _has_management(fresh), "RabbitMQ with the management plugin makes the outputs"
    notebook = nbformat.read(path, as_version=4)
    new = {cell.id: cell for cell in fresh.cells}
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        only = nbformat.v4.new_notebook(cells=[new[cell.id]])
        has_none = cell.execution_count is None
        if has_none or not keeps_equal or differences(notebook, only):
            cell.outputs = new[cell.id].outputs
        cell.execution_count = new[cell.id].execution_count
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = cell.execution_count
    text = json.dumps(nbformat.v4.rwbase.split_lines(notebook), indent=1, ensure_ascii=False)
    path.write_text(f"{text}\n", encoding="utf-8", newline="\n")


def comparable(outputs: list[Any], tags: Collection[str]) -> list[tuple[str, Any]]:
    """Return the kind and the normalised content of each of *outputs*."""
    found: list[tuple[str, Any]] = []
    for output in _lasting(outputs):
        if output.output_type == "stream":
            found.append((output.name, normalised(output.text, tags)))
        for kind, content in sorted(output.get("data", {}).items()):
            if kind == PICTURE:
                found.append((kind, base64.b64decode(content)))
            elif isinstance(content, str):
                found.append((kind, normalised(DATA_URI.sub(_svg, content), tags)))
            else:
                text = json.dumps(content, sort_keys=True)
                found.append((kind, re.sub(r"\b\d+\.\d+(?:e-\d+)?\b", "(time)", normalised(text))
                              if "times" in tags else normalised(text)))  # fmt: skip
    return found


def _svg(found: re.Match[str]) -> str:
    return base64.b64decode(found[1]).decode()


def _kinds(outputs: list[Any]) -> list[tuple[str, Any]]:
    """Return the kinds of data; streams are left out, as what a log says may come or not."""
    return [(kind, "") for each in _lasting(outputs) for kind in sorted(each.get("data", {}))]


def _lasting(outputs: list[Any]) -> list[Any]:
    """Return *outputs* without a progress, which is shown only if a wait is a long one."""
    return [
        each for each in outputs
        if list(each.get("data", {})) != ["text/plain"] or normalised(each.data["text/plain"])
    ]  # fmt: skip


def _is_same(had: list[tuple[str, Any]], has: list[tuple[str, Any]]) -> bool:
    if [kind for kind, _ in had] != [kind for kind, _ in has]:
        return False
    pairs = zip(had, has, strict=True)
    return all(
        one == two or (kind == PICTURE and bool(one) and _distance(one, two) <= MAX_DISTANCE)
        for (kind, one), (_, two) in pairs
    )


def _distance(one: bytes, two: bytes) -> float:
    """Return the mean difference of the pixels of two PNGs; infinite if their sizes differ."""
    import numpy
    from matplotlib.image import imread

    first, second = imread(io.BytesIO(one)), imread(io.BytesIO(two))
    if first.shape != second.shape:
        return float("inf")
    return float(numpy.abs(first - second).mean() * 255)


def _hidden(output: Any) -> Any:
    if output.output_type == "stream":
        output.text = committed(output.text)
    for kind, content in output.get("data", {}).items():
        if isinstance(content, str) and kind != PICTURE:
            output.data[kind] = committed(content)
    return output


def _has_management(notebook: Any) -> bool:
    """Return whether no cell says that it uses the embedded broker, or lacks the plugin."""
    said = {cell.get("id"): "".join(each.get("text", "") for each in cell.get("outputs", ()))
            for cell in notebook.cells}  # fmt: skip
    return "embedded" not in said.get("broker", "") and not said.get("has-management", "")


def strip(path: Path) -> None:
    """Take the outputs out of the notebook at *path*, as if nobody had run it."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, path)
