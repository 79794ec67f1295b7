"""Fixtures of the tests of `mousetrap.check`."""

from __future__ import annotations

import subprocess

import pytest
from support.grids import make_grid

from mousetrap.check.report import write_report


@pytest.fixture
def no_kernel(monkeypatch):
    """Fail the test if it starts a process."""

    def refuse(*_, **__):
        pytest.fail("a process was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)


@pytest.fixture
def report_folder(tmp_path):
    """The folder of a report about two points, one of which failed; all text is harmless."""
    write_report(make_grid(tmp_path))
    return tmp_path
