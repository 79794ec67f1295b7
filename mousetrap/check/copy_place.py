"""Where the executed copy is written while a notebook runs, and how it gets to its target.

Usually that is one place. A link stays a link. The standard output, a terminal, the null device or
a pipe cannot hold a draft, so the copy is made in a temporary folder, and sent there at the end.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mousetrap.check.executed_notebook import default_output, make_folder
from mousetrap.errors import CheckError
from mousetrap.runtime.atomic_file import is_replaceable, write_atomically

# "-" is as for papermill; a file of this name needs its folder
STANDARD_OUTPUT = {Path(name) for name in ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")}


def target_of(notebook: Path, output: str | Path | None) -> Path:
    """Return the path of the executed copy of *notebook*.

    Raises:
        CheckError: it would overwrite the notebook, or is a folder, a socket or a disk.
    """
    target = Path(output) if output is not None else default_output(notebook)
    if is_standard_output(output):
        return target
    try:
        place = target.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle; not a name of a file
        raise CheckError(f"output {str(target)!r} cannot be used: {error}") from None
    if place == notebook.absolute().resolve():
        raise CheckError(f"the executed copy would overwrite {notebook}: give another output")
    try:
        if not is_replaceable(target) and not os.access(target, os.W_OK):
            raise CheckError(f"output {target} cannot be written: give another output")
    except IsADirectoryError:
        raise CheckError(f"output {target} is a folder: give a file name in it") from None
    except OSError as error:
        raise CheckError(f"output {target} cannot be used: {error.strerror}") from None
    return target


def is_standard_output(output: str | Path | None) -> bool:
    """Return whether *output* is ``-`` or another name of the standard output."""
    return output is not None and Path(output) in STANDARD_OUTPUT


def can_be_read(target: Path) -> bool:
    """Return whether the executed copy at *target* can be read again."""
    return not is_standard_output(target) and target.is_file()


@contextmanager
def place_for(target: Path, notebook: Path) -> Iterator[Path]:
    """Yield the path at which the executed copy for *target* is made; send it there afterwards.

    Raises:
        CheckError: on exit: it could not be sent; it is kept beside the *notebook*.
    """
    if not is_standard_output(target) and is_replaceable(target):
        yield Path(os.path.realpath(target)) if target.is_symlink() else target
        return
    with tempfile.TemporaryDirectory(prefix="mousetrap-", ignore_cleanup_errors=True) as folder:
        copy = Path(folder, "executed.ipynb")
        try:
            yield copy
        except BaseException:
            with suppress(CheckError):  # the error of the run says more
                _send(copy, target, notebook)
            raise
        _send(copy, target, notebook)


def _send(copy: Path, target: Path, notebook: Path) -> None:
    if not copy.exists():
        return
    data = copy.read_bytes()
    try:
        if is_standard_output(target):
            _print(data)
        else:
            write_atomically(target, data)
    except OSError as error:
        kept = default_output(notebook)
        make_folder(kept.parent)
        shutil.move(copy, kept)
        raise CheckError(
            f"the executed copy cannot be written to {target}: {error.strerror or error}. It is "
            f"in {kept}"
        ) from None


def _print(data: bytes) -> None:
    binary = getattr(sys.stdout, "buffer", None)
    if binary is None:  # a notebook's, or one that a test replaced
        sys.stdout.write(data.decode())
    else:
        sys.stdout.flush()
        binary.write(data)
    sys.stdout.flush()
