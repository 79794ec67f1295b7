"""The user's state folder and the files of ``deploy/``."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from mousetrap.broker import paths
from mousetrap.errors import BrokerSetupError


def test_state_folder_is_in_xdg_state_home(monkeypatch, tmp_path):
    """``XDG_STATE_HOME`` names it on every system; only this user can read it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    folder = paths.state_folder("runs")

    assert folder == tmp_path / "mousetrap" / "runs"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.skipif(sys.platform != "linux", reason="the folder of Linux")
def test_state_folder_on_linux_is_in_local_state(monkeypatch, tmp_path):
    """Without ``XDG_STATE_HOME`` it is in ``~/.local/state``."""
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    assert paths.state_folder() == tmp_path / ".local" / "state" / "mousetrap" / "broker"


def test_deploy_file_is_found_in_the_checkout():
    """The compose file is there; a missing file is an error that says what to do."""
    assert paths.deploy_file("development.yml").parent == Path(__file__).parents[2] / "deploy"
    with pytest.raises(BrokerSetupError, match="install mousetrap-mq again"):
        paths.deploy_file("no such file")
