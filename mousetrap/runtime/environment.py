"""Which program this process is: a notebook's kernel, and of which one, or something else.

Jupyter is not imported here: where there is a kernel, that has been done.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any


def shell() -> Any:
    """The IPython shell of this process, in a kernel or a terminal; None in plain Python."""
    module = sys.modules.get("IPython")
    return module.get_ipython() if module is not None else None


def is_kernel() -> bool:
    """Say whether this process is a notebook's kernel, whatever the notebook is opened in."""
    return hasattr(shell(), "kernel")


def program_name() -> str:
    """What people call this process: ``analysis.ipynb``, ``mousetrap work``, ``train.py``."""
    if is_kernel():
        # VS Code tells by a variable, Jupyter's server by the environment, others not at all
        path = shell().user_ns.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME")
        return _last_part(str(path)) if path else "a notebook"
    name = _last_part(path := sys.argv[0] if sys.argv else "")
    if name == "__main__.py":  # python -m package
        name = _last_part(path.removesuffix(name)[:-1])
    if name == "mousetrap" and len(sys.argv) > 1 and sys.argv[1].isalpha():
        return f"mousetrap {sys.argv[1]}"
    return name if name not in ("", "-c", "-m") else "python"


def _last_part(path: str) -> str:
    return re.split(r"[/\\]", path)[-1][:100]
