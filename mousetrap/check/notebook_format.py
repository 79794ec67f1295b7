"""Reads and writes the text of a notebook: what Jupyter and papermill open, a check opens too.

The programs that write notebooks often break the schema a little, and Jupyter repairs it without a
word: cells with ids in a format that has none, a code cell without outputs. So a document is not
compared with the schema; what is missing gets its default.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

_OUTPUT_DEFAULTS: dict[str, dict[str, Any]] = {
    "stream": {"name": "stdout", "text": ""},
    "display_data": {"data": {}, "metadata": {}},
    "execute_result": {"data": {}, "metadata": {}, "execution_count": None},
    "error": {"ename": "Error", "evalue": "", "traceback": []},
}
_FIRST_MINOR_WITH_IDS = 5  # of nbformat 4


def parse(text: str) -> Any:
    """Return the notebook in *text*, of any version, as a complete document of nbformat 4.

    Raises:
        ValueError: it is not a notebook, or one without what can have no default.
        Exception: nbformat raises any error of its parsers and converters.
    """
    from nbformat import convert, reader

    found = reader.reads(text.removeprefix("\ufeff"))  # type: ignore[no-untyped-call]  # half annotated
    document: Any = convert(found, 4)  # type: ignore[no-untyped-call]  # as above
    _complete(document)
    return document


def text_of(document: Any) -> str:
    """Return the text of a notebook *document*; its schema is not checked."""
    from nbformat import v4

    return str(v4.writes(document))  # type: ignore[no-untyped-call]  # half annotated


def insert_cell(document: Any, index: int, cell: Any) -> None:
    """Insert the new *cell*; without its id, if the format of *document* has none."""
    if document.nbformat_minor < _FIRST_MINOR_WITH_IDS:
        cell.pop("id", None)
    document.cells.insert(index, cell)


def _complete(document: Any) -> None:
    """Give *document* what Jupyter assumes where it is missing."""
    _require(isinstance(document.get("cells"), list), "it has no list of cells")
    document.setdefault("nbformat_minor", _FIRST_MINOR_WITH_IDS)
    metadata = _table_in(document, "metadata")
    for name in ("kernelspec", "language_info", "papermill", "mousetrap"):
        if not isinstance(metadata.get(name, {}), dict):
            del metadata[name]
    for number, cell in enumerate(document.cells, start=1):
        _require(isinstance(cell, dict) and "cell_type" in cell, f"cell {number} has no type")
        is_code = cell.cell_type == "code"
        source = cell.setdefault("source", None if is_code else "")
        _require(isinstance(source, str), f"cell {number} has no source")
        if not isinstance(_table_in(cell, "metadata").get("tags", []), list):
            del cell.metadata["tags"]
        if not isinstance(cell.metadata.get("papermill", {}), dict):
            del cell.metadata["papermill"]
        if is_code:
            cell["outputs"] = list(_outputs(cell.get("outputs", [])))
            cell.setdefault("execution_count", None)


def _outputs(found: list[Any]) -> Iterator[Any]:
    """Yield the outputs that have a type, complete."""
    for output in found:
        if isinstance(output, dict) and isinstance(output.get("output_type"), str):
            defaults = _OUTPUT_DEFAULTS.get(output["output_type"], {})
            for name, default in copy.deepcopy(defaults).items():
                output.setdefault(name, default)
            yield output


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)


def _table_in(parent: Any, name: str) -> Any:
    if not isinstance(parent.get(name), dict):
        parent[name] = type(parent)()
    return parent[name]
