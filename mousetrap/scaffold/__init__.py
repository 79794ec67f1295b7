"""Makes a new project: ``mousetrap new my_flow``.

The templates are a project that works as it is: ``project/``, whose package is called `my_flow`. A
new project is a copy of it in which `TEMPLATE_NAME` is replaced by the name. ``minimal/`` has the
files that are different in a project without CI, containers and recording.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mousetrap.errors import ScaffoldError
from mousetrap.scaffold.project_names import check_project_name

TEMPLATE_NAME = "my_flow"
_TEMPLATES = Path(__file__).parent
_FULL_ONLY = (
    ".dockerignore", ".github/workflows/ci.yml", "deploy/Dockerfile", "deploy/compose.yml",
    "tests/first_run.jsonl", "tests/test_recording.py",
)  # fmt: skip
_FILES = (
    ".gitignore", "README.md", "pyproject.toml",
    "my_flow/__init__.py", "my_flow/converting.py", "my_flow/parsing.py",
    "notebooks/check_my_flow.ipynb", "notebooks/prototype.ipynb",
    "tests/test_my_flow.py",
)  # fmt: skip
_DIFFERENT_IF_MINIMAL = ("README.md",)


@dataclass(frozen=True)
class NewProject:
    """The project that `create_project` made."""

    folder: Path
    files: tuple[str, ...]  # relative to the folder, with ``/``


def create_project(name: str, parent: str | Path = ".", *, minimal: bool = False) -> NewProject:
    """Write a project called *name* into a new folder of that name in *parent*.

    The project has a notebook with two functions, the package that was made of them, a check, tests
    and a README; unless *minimal*, also a recorded run as a test, containers and a CI workflow.
    Either all files are written or none.

    Raises:
        ScaffoldError: the name cannot be used, there is such a folder or file already, or nothing
            can be written there; the text says what to do.
    """
    check_project_name(name)
    folder = Path(parent) / name
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ScaffoldError(
            f"{folder} exists already, and nothing is overwritten: choose another name, or move it "
            f"away"
        )
    names = tuple(sorted(_FILES if minimal else _FILES + _FULL_ONLY))
    try:
        Path(parent).mkdir(parents=True, exist_ok=True)
        # Beside its place, so that the last step is one rename.
        draft = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=parent))
        try:
            for each in names:
                _write(each, draft, name, minimal)
            draft.chmod(0o755)  # mkdtemp makes it for this user only
            if folder.exists():
                folder.rmdir()  # it is empty; Windows does not replace it
            draft.rename(folder)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
    except OSError as error:
        raise ScaffoldError(
            f"{folder} cannot be written ({error.strerror or error}): change to a folder that you "
            f"may write to"
        ) from error
    return NewProject(folder, tuple(_renamed(each, name) for each in names))


def _write(file: str, folder: Path, name: str, minimal: bool) -> None:
    variant = "minimal" if minimal and file in _DIFFERENT_IF_MINIMAL else "project"
    text = (_TEMPLATES / variant / file).read_text(encoding="utf-8")
    target = folder / _renamed(file, name)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(_renamed(text, name), encoding="utf-8", newline="\n")


def _renamed(text: str, name: str) -> str:
    return text.replace(TEMPLATE_NAME, name)
