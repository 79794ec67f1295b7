"""Lets commands, and the kernels that they start, import from the current folder.

``python -m mousetrap`` does that for its own process; the installed program does not.
"""

from __future__ import annotations

import os
import sys


def import_from_here() -> None:
    """Let this process import from the current folder."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def import_variables() -> dict[str, str]:
    """Return the variable with which a child process imports from the current folder, too."""
    folders = [os.getcwd(), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(filter(None, folders))}
