"""Which notebooks are read: those that papermill and Jupyter open, and no others."""

from __future__ import annotations

import json

import nbformat
import pytest
from papermill.iorw import load_notebook_node

from mousetrap.check import check, parameters_of
from mousetrap.check.executed_notebook import read
from mousetrap.check.notebook_format import insert_cell, parse, text_of
from mousetrap.check.parameters import read_notebook
from mousetrap.errors import CheckError

CELL = {"cell_type": "code", "metadata": {}, "source": "1 + 1", "outputs": [],
        "execution_count": None, "id": "one"}  # fmt: skip
DOCUMENT = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [CELL]}
VERSION_3 = {
    "nbformat": 3, "nbformat_minor": 0, "metadata": {"name": ""},
    "worksheets": [{"metadata": {}, "cells": [
        {"cell_type": "code", "input": "1 + 1", "language": "python", "outputs": [],
         "collapsed": False, "prompt_number": 1, "metadata": {}}]}],
}  # fmt: skip


def with_cell(**changes):
    """Return the document with a cell in which *changes* are made; None removes a key."""
    changed = {name: value for name, value in (CELL | changes).items() if value is not None}
    return DOCUMENT | {"cells": [changed]}


PAPERMILL_OPENS = {
    "complete": DOCUMENT,
    "ids in minor 4": DOCUMENT | {"nbformat_minor": 4},
    "no id in minor 5": with_cell(id=None),
    "invalid id": with_cell(id="a b" * 40),
    "the same id twice": DOCUMENT | {"cells": [CELL, CELL]},
    "no outputs": with_cell(outputs=None),
    "no execution count": {**DOCUMENT, "cells": [{
        name: value for name, value in CELL.items() if name != "execution_count"}]},
    "execution count as text": with_cell(execution_count="*"),
    "outputs without their fields": with_cell(
        outputs=[{"output_type": "stream"}, {"output_type": "error"}, {"x": 1}]
    ),
    "unknown keys": {**with_cell(extra=1), "extra": [1]},
    "source in lines": with_cell(source=["1 +\\\n", "1"]),
    "later minor": DOCUMENT | {"nbformat_minor": 9},
    "cell of an older type": {**DOCUMENT, "cells": [
        {"cell_type": "heading", "level": 1, "metadata": {}, "source": "x"}, CELL]},
    "kernel without a name": DOCUMENT | {"metadata": {"kernelspec": {"display_name": "P"}}},
    "kernel as text": DOCUMENT | {"metadata": {"kernelspec": "python3"}},
    "version 3": VERSION_3,
    "Colab": {**DOCUMENT, "nbformat_minor": 0, "metadata": {"colab": {"provenance": []}}},
}  # fmt: skip

ONLY_WE_OPEN = {
    "byte order mark": "\ufeff" + json.dumps(DOCUMENT),
    "metadata of papermill that is null": json.dumps(
        DOCUMENT | {"metadata": {"papermill": None, "mousetrap": "x"}}
    ),
    "metadata of a cell that is null": json.dumps(with_cell(metadata={"papermill": None})),
    "tags that are null": json.dumps(with_cell(metadata={"tags": None})),
    "no minor": json.dumps({n: v for n, v in DOCUMENT.items() if n != "nbformat_minor"}),
}

NOBODY_OPENS = {
    "later version": DOCUMENT | {"nbformat": 5},
    "code without a source": with_cell(source=None),
    "cell without a type": with_cell(cell_type=None),
    "cells that are no list": DOCUMENT | {"cells": {}},
    "no cells": {name: value for name, value in DOCUMENT.items() if name != "cells"},
}


@pytest.mark.parametrize("document", PAPERMILL_OPENS.values(), ids=PAPERMILL_OPENS)
def test_notebooks_that_papermill_opens_are_read(tmp_path, document):
    """papermill reads it, so a check reads it, and what the check writes is read again."""
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps(document))
    assert load_notebook_node(str(path)).cells

    found = read_notebook(path)

    assert parameters_of(path) == []
    assert "1" in found.cells[-1].source
    assert parse(text_of(found)).cells == found.cells


@pytest.mark.parametrize("text", ONLY_WE_OPEN.values(), ids=ONLY_WE_OPEN)
def test_notebooks_that_editors_damage_are_read(tmp_path, text):
    """A mark at the beginning, which editors of Windows add, or an empty entry does no harm."""
    path = tmp_path / "a.ipynb"
    path.write_text(text, encoding="utf-8")

    assert read_notebook(path).cells[0].source == "1 + 1"
    assert read(path).notebook == path


@pytest.mark.parametrize("document", NOBODY_OPENS.values(), ids=NOBODY_OPENS)
def test_documents_that_are_no_notebooks_are_refused(tmp_path, document):
    """What papermill cannot run is refused before a kernel starts, with the reason."""
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps(document))

    with pytest.raises(CheckError, match="is not a Jupyter notebook: "):
        read_notebook(path)


def test_check_runs_a_damaged_notebook(tmp_path):
    """It runs what it has read, although papermill itself would fail on the file."""
    path = tmp_path / "a.ipynb"
    path.write_text("\ufeff" + json.dumps(with_cell(metadata={"tags": None})), encoding="utf-8")

    result = check(path)

    assert result.passed
    assert result.cells == 1


def test_insert_cell_adds_no_id_to_a_format_without_ids():
    """Otherwise the file would not agree with the schema of its own version."""
    document = parse(json.dumps(with_cell(id=None) | {"nbformat_minor": 4}))

    insert_cell(document, 0, nbformat.v4.new_code_cell("1"))

    nbformat.validate(document)
    assert "id" not in document.cells[0]
