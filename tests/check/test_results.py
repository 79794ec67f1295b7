"""The report's files as data: written, read back, and refused when they are something else."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from support.grids import HOSTILE, make_grid

from mousetrap.check import GridResult, read_results
from mousetrap.check.report import write_report
from mousetrap.errors import CheckError


def test_report_files_are_readable_by_their_owner_only(report_folder):
    """As for the executed copies; no incomplete file is left."""
    names = {"index.html", "results.json", "junit.xml"}

    assert {path.name for path in report_folder.iterdir()} == names | {"1-prefetch=1.ipynb"}
    assert {stat.S_IMODE((report_folder / name).stat().st_mode) for name in names} == {0o600}


def test_report_says_when_it_cannot_be_written(tmp_path):
    """The folder was deleted while the grid ran."""
    with pytest.raises(CheckError, match="report cannot be written"):
        write_report(make_grid(tmp_path / "gone"))


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_unchanged_as_data(tmp_path, text):
    """Programs read the text as it was."""
    grid = make_grid(tmp_path, text=text)
    write_report(grid)

    assert read_results(tmp_path) == grid


def test_results_have_null_for_nan(tmp_path):
    """NaN is not JSON."""
    write_report(make_grid(tmp_path, summary={"seconds": float("nan")}))
    document = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)

    assert document["points"][0]["summary"] == {"seconds": None}


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"version": 2}', '{"version": 1, "points": 5}', "\udcff", "[" * 50_000],
    ids=range(7),
)
def test_read_results_refuses_another_file(tmp_path, content):
    """The error is one sentence."""
    path = tmp_path / "results.json"
    path.write_bytes(content.encode(errors="surrogateescape"))

    with pytest.raises(CheckError, match="does not hold the results of a grid"):
        read_results(path)


def test_read_results_says_that_the_file_is_missing(tmp_path):
    """The error names the file."""
    with pytest.raises(CheckError, match="there is no"):
        read_results(tmp_path)


def test_grid_result_is_a_plain_value():
    """A test can create one without a run."""
    result = GridResult((), (), Path("x"), "2026-11-25T07:00:00+00:00", 1.0, 1)

    assert result.passed
    assert len(result) == 0
    assert result.sentence() == "0 of 0 notebooks passed"
