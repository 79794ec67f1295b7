"""Which names a new project can have: it is the name of its folder, its package and its images."""

from __future__ import annotations

import importlib.machinery
import keyword
import re
import sys

from mousetrap.errors import ScaffoldError

MAX_PROJECT_NAME = 40  # characters; lines of the templates stay short enough for a formatter
_PATTERN = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_OWN_FOLDERS = {"deploy", "notebooks", "tests", "dist", "build"}
_WINDOWS_DEVICES = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{a}{n}" for a in ("com", "lpt") for n in range(10)),
}


def check_project_name(name: str) -> None:
    """Refuse a name that Python, the file system or the project itself cannot use.

    Raises:
        ScaffoldError: says why, and suggests another name.
    """
    if problem := _problem(name):
        raise ScaffoldError(f"a project cannot be called {name[:60]!r}: {problem}")


def _problem(name: str) -> str:
    if len(name) > MAX_PROJECT_NAME:
        return f"use at most {MAX_PROJECT_NAME} characters"
    if not _PATTERN.fullmatch(name):
        words = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())
        near = re.sub(r"^[0-9_]+", "", words).rstrip("_")
        rule = "use small letters, digits and single underscores, and begin with a letter"
        is_better = _PATTERN.fullmatch(near) and not _problem(near)
        return f"{rule}, like {near if is_better else 'my_flow'}"
    other = f"use another name, like {name}_flow"
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        return f"it is a word of Python's grammar; {other}"
    if name == "mousetrap":
        return f"its package would hide this one; {other}"
    if name in sys.stdlib_module_names:
        return f"its package would hide the module {name} of Python itself; {other}"
    if name in _OWN_FOLDERS:
        return f"the project has a folder of this name; {other}"
    if name in _WINDOWS_DEVICES:
        return f"Windows has a device of this name; {other}"
    # Without the current folder, in which a project of this name may be.
    if importlib.machinery.PathFinder.find_spec(name, _installed()) is not None:
        return f"a package of this name is installed, and the new one would hide it; {other}"
    return ""


def _installed() -> list[str]:
    """Return the folders in which installed packages are."""
    return [each for each in sys.path if each.endswith(("site-packages", "dist-packages"))]
