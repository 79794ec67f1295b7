"""Where things lie: the files of ``deploy/`` and this user's state folder."""

from __future__ import annotations

import os
from pathlib import Path

from mousetrap.errors import BrokerSetupError


def deploy_file(name: str) -> Path:
    """Find a file of ``deploy/``: inside the package when it was installed, else in the checkout.

    Raises:
        BrokerSetupError: it is in neither place.
    """
    here = Path(__file__).resolve().parent
    for folder in (here / "deploy", here.parents[1] / "deploy"):
        if (folder / name).is_file():
            return folder / name
    raise BrokerSetupError(f"deploy/{name} is missing from this installation: install it again")


def state_folder(name: str = "broker") -> Path:
    """Make and return a folder for what outlives a process, readable by this user only."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    folder = Path(base) / "mousetrap" / name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)  # it may have been there with another mode
    return folder
