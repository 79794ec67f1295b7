"""`mousetrap.check.junit`: failures, errors, and text that XML can hold."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.grids import HOSTILE, make_grid

from mousetrap.check import CheckResult, GridResult, PointResult
from mousetrap.check.report import write_report
from mousetrap.check.safe_text import safe_text


def test_junit_counts_failures(report_folder):
    """A cell that raised is a failure; the suite has the sums that CI shows."""
    suite = ElementTree.parse(report_folder / "junit.xml").getroot()[0]

    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "0")
    assert suite[1].find("failure").get("message") == "AssertionError: lost 5"
    assert suite[1].get("classname") == "notebooks.check_it"


def test_junit_has_an_error_for_a_point_that_did_not_run(tmp_path):
    """For CI a skipped test would be a success."""
    not_run = CheckResult(Path("a.ipynb"), tmp_path / "1.ipynb", error="interrupted")
    point = PointResult(1, "a", {}, "x-1", False, not_run)
    write_report(GridResult((), (point,), tmp_path, "2026-11-25T07:00:00+00:00", 1.0, 1))
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()[0]

    assert suite.get("errors") == "1"
    assert suite[0].find("error").get("message") == "interrupted"


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_valid_in_junit(tmp_path, text):
    """XML cannot hold control characters and surrogates: they are escaped."""
    write_report(make_grid(tmp_path, text=text))
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()[0]

    assert [case.get("name") for case in suite] == [safe_text(text), safe_text(text)]
    assert safe_text(text) in suite[1].find("failure").text
    assert [element.tag for element in suite.iter()] == [
        "testsuite", "testcase", "properties", *["property"] * 9,
        "testcase", "properties", *["property"] * 9, "failure", "system-out",
    ]  # fmt: skip
