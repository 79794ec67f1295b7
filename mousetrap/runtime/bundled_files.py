"""The files of the repository that are in the wheel, too: the notebooks, and those of ``deploy/``.

The wheel has them in ``mousetrap/bundled/``, as `pyproject.toml` says; in a checkout they are where
they always are. Nothing is written into either folder.
"""

from __future__ import annotations

from pathlib import Path

from mousetrap.errors import MousetrapError

PACKAGE = Path(__file__).resolve().parents[1]
_IGNORED = {"_build", "__pycache__"}  # folders that running the notebooks makes in a checkout


def bundled_folder(name: str) -> Path:
    """Return the folder *name*, ``notebooks`` or ``deploy``: of the installed package, or checkout.

    Raises:
        MousetrapError: it is in neither place.
    """
    for parent in (PACKAGE / "bundled", PACKAGE.parent):
        if (parent / name).is_dir():
            return parent / name
    raise MousetrapError(f"{name}/ is missing from this installation: install mousetrap-mq again")


def bundled_files(name: str) -> list[Path]:
    """Return the paths of all files in that folder, relative to it, in the order of their names.

    Raises:
        MousetrapError: there is no such folder.
    """
    folder = bundled_folder(name)
    found = [each.relative_to(folder) for each in folder.rglob("*") if each.is_file()]
    return sorted(
        each for each in found
        if not any(part in _IGNORED or part.startswith(".") for part in each.parts)
    )  # fmt: skip
