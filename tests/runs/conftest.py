"""Fixtures of the tests of runs."""

from __future__ import annotations

import pytest


@pytest.fixture
def own_state(tmp_path, monkeypatch):
    """Use a new state folder, so that tests do not sweep other runs on this machine."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "mousetrap" / "runs"
