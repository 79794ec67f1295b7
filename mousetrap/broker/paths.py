"""The files of ``deploy/`` and the user's state folder: where they are."""

from __future__ import annotations

import os
from pathlib import Path

from mousetrap.errors import BrokerSetupError, MousetrapError, SettingsError
from mousetrap.runtime.bundled_files import bundled_folder


def deploy_file(name: str) -> Path:
    """Return the path of a file of ``deploy/``, in the installed package or in the checkout.

    Raises:
        BrokerSetupError: it is in neither place.
    """
    try:
        path = bundled_folder("deploy") / name
    except MousetrapError as error:
        raise BrokerSetupError(str(error)) from None
    if not path.is_file():
        raise BrokerSetupError(
            f"deploy/{name} is missing from this installation: install mousetrap-mq again"
        )
    return path


def state_folder(name: str = "broker") -> Path:
    """Create and return the folder *name* for what stays after a process, for this user only.

    It is in ``XDG_STATE_HOME`` if that is set, otherwise where the system keeps such files:
    ``~/.local/state/mousetrap/NAME`` on Linux.

    Raises:
        SettingsError: it cannot be made or used; the text names the folder and the variable.
    """
    import platformdirs  # not at the top: most commands need no such folder

    base = os.environ.get("XDG_STATE_HOME")  # platformdirs reads it on Linux only
    state = (
        Path(base, "mousetrap")
        if base
        else platformdirs.user_state_path("mousetrap", appauthor=False)
    )
    folder = state / name
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)  # it may exist with another mode
    except OSError as error:
        raise SettingsError(
            f"the state folder {folder} cannot be used ({error.strerror or error}): make it "
            f"writable, or name another folder in XDG_STATE_HOME"
        ) from error
    return folder
