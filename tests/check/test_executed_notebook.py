"""`mousetrap.check.executed_notebook`: copies of papermill, and results without a run."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from mousetrap.check import CheckResult, read
from mousetrap.errors import CheckError


def test_read_accepts_a_copy_of_plain_papermill(tmp_path):
    """The output of `papermill in.ipynb out.ipynb` can be read."""
    document = new_notebook()
    document.metadata["papermill"] = {
        "parameters": {"jobs": 7},
        "duration": 1.5,
        "input_path": "check_x.ipynb",
    }
    cell = new_code_cell("jobs: int = 5\nseed = 1", execution_count=1)
    cell.metadata["tags"] = ["parameters"]
    injected = new_code_cell("jobs = 7", execution_count=2)
    injected.metadata["tags"] = ["injected-parameters"]
    claim = new_code_cell("assert jobs == 5", execution_count=3)
    claim.outputs = [new_output("error", ename="AssertionError", evalue="", traceback=[])]
    document.cells = [cell, injected, claim]
    path = tmp_path / "out.ipynb"
    nbformat.write(document, path)

    result = read(path)

    assert result.notebook == Path("check_x.ipynb")
    assert result.parameters == {"jobs": 7, "seed": 1}
    assert result.seconds == 1.5
    assert result.failing.number == 2
    assert result.error == "cell 2: AssertionError:"
    assert not result.passed


def test_read_refuses_a_missing_file(tmp_path):
    """The error says that the file does not exist."""
    with pytest.raises(CheckError, match="no notebook"):
        read(tmp_path / "a.ipynb")


def test_check_result_is_a_plain_value():
    """A test can create one without a run."""
    result = CheckResult(Path("a.ipynb"), Path("_build/a.ipynb"), error="cell 1: no luck")

    assert repr(result) == "<CheckResult a.ipynb failed: 0 cells in 0.0 s, no summary>"
