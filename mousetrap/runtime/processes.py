"""How a child process is started so that Ctrl-C in the terminal reaches this process only."""

from __future__ import annotations

import subprocess
import sys
from typing import Any


def own_group(*, session: bool = False) -> dict[str, Any]:
    """Return the arguments of `subprocess.Popen` that put the child into a process group.

    The caller then decides when the child ends. With *session* the child also has no terminal, on
    systems with POSIX sessions.
    """
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True} if session else {"process_group": 0}
