"""Which program this process is: a notebook's kernel, and of which notebook, or another program.

Jupyter is not imported here: in a kernel it is imported already.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any


def ipython_shell() -> Any:
    """Return the IPython shell of this process, in a kernel or a terminal; None in plain Python."""
    module = sys.modules.get("IPython")
    return module.get_ipython() if module is not None else None


def is_kernel() -> bool:
    """Return whether this process is a notebook's kernel, in whichever program it is open."""
    return hasattr(ipython_shell(), "kernel")


def program_name() -> str:
    """Return the name of this process: ``analysis.ipynb``, ``mousetrap work``, ``train.py``."""
    if is_kernel():
        # VS Code sets a variable of the notebook, Jupyter's server one of the environment; other
        # programs set neither.
        variables = ipython_shell().user_ns
        path = variables.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME")
        return _last_part(str(path)) if path else "a notebook"
    name = _last_part(path := sys.argv[0] if sys.argv else "")
    if name == "__main__.py":  # python -m package
        name = _last_part(path.removesuffix(name)[:-1])
    if name == "mousetrap" and len(sys.argv) > 1 and sys.argv[1].isalpha():
        return f"mousetrap {sys.argv[1]}"
    return name if name not in ("", "-c", "-m") else "python"


def _last_part(path: str) -> str:
    return re.split(r"[/\\]", path)[-1][:100]
