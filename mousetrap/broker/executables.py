"""Finds the programs of a private node: RabbitMQ's start script and Erlang's port mapper."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

# Often not on the PATH: Debian's sbin for ordinary users, Homebrew's for desktop applications.
EXTRA_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin", "/opt/homebrew/bin")


def search_path() -> str:
    """Return the PATH, this interpreter's folder (conda's programs are there), `EXTRA_FOLDERS`."""
    interpreter_folder = str(Path(sys.executable).parent)
    return os.pathsep.join([os.environ.get("PATH", ""), interpreter_folder, *EXTRA_FOLDERS])


def find_server() -> Path | None:
    """Find RabbitMQ's own start script, not the wrapper that Debian and conda put on the PATH.

    The wrapper changes to the user `rabbitmq` or into a system folder; the real script is in the
    same folder as a file called ``rabbitmq-env``.
    """
    found = shutil.which("rabbitmq-server", path=search_path())
    if found is None:
        return None
    folder = Path(found).resolve().parent
    script = folder / "rabbitmq-server"
    return script if (folder / "rabbitmq-env").exists() and script.exists() else Path(found)


def find_epmd() -> Path | None:
    """Find Erlang's port mapper: on the PATH, or in the same folder as `erl`."""
    if found := shutil.which("epmd", path=search_path()):
        return Path(found)
    erl = shutil.which("erl", path=search_path())
    epmd = Path(erl).resolve().with_name("epmd") if erl else None
    return epmd if epmd and epmd.exists() else None


def problem() -> str | None:
    """Return in one sentence why no private node can be started here; None if one can."""
    if sys.platform == "win32":
        return "a private node needs Linux or macOS: use Docker on Windows"
    if find_server() is None:
        return (
            "rabbitmq-server is not installed: apt-get install rabbitmq-server, "
            "brew install rabbitmq, or conda install -c conda-forge rabbitmq-server"
        )
    if find_epmd() is None:
        return "Erlang is not installed (no `epmd` on the PATH), which rabbitmq-server needs"
    return None
