"""``mousetrap notebooks``: copies the notebooks of the installed package."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Annotated

import typer

from mousetrap.cli.console import print_json, print_message
from mousetrap.cli.options import Json
from mousetrap.display.formats import counted
from mousetrap.errors import SettingsError
from mousetrap.runtime.bundled_files import bundled_files, bundled_folder


def notebooks(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where to; it is made if it is missing.")
    ] = Path("notebooks"),
    json: Json = False,
) -> None:
    """Copy the notebooks of this project to FOLDER, and say how to open them.

    00 to 10 are for reading, one after the other; check_* and bench_* are for running, with
    `mousetrap check`. Nothing is overwritten: if one of the files is there, none is copied.

    Example: mousetrap notebooks

    Example: mousetrap notebooks learn
    """
    copied = copy_notebooks(folder)
    if json:
        print_json({"folder": str(folder), "files": [str(folder / each) for each in copied]})
        return
    number = sum(each.suffix == ".ipynb" for each in copied)
    print_message(f"copied {counted(number, 'notebook')} to {folder}/")
    if importlib.util.find_spec("jupyterlab") is None:
        print_message("install what opens them: pip install 'mousetrap-mq[notebook]'")
    print_message(f"open them:    jupyter lab {folder}", is_folded=False)
    print_message("begin with:   00_start_here.ipynb")
    print_message(f"run a check:  mousetrap check {folder}/check_pipeline.ipynb", is_folded=False)


def copy_notebooks(folder: Path) -> list[Path]:
    """Copy the notebooks, and what they import and show, to *folder*; return their paths in it.

    Raises:
        SettingsError: a file would be overwritten, or the folder cannot be used.
    """
    source, paths = bundled_folder("notebooks"), bundled_files("notebooks")
    there = [each for each in paths if (folder / each).exists()]
    if there:
        raise SettingsError(
            f"{folder / there[0]} exists already, and nothing is overwritten: name another "
            f"folder (mousetrap notebooks FOLDER), or move that one away"
        )
    try:
        for each in paths:
            (folder / each).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / each, folder / each)
    except OSError as error:
        raise SettingsError(
            f"{folder} cannot be written to ({error.strerror or error}): name another folder"
        ) from error
    return paths
