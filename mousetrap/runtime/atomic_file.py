"""Writing a file in one step, so that no reader ever sees half of it.

Only a plain file is replaced. A link stays a link, and the file that it names is replaced; a
terminal, the null device or a pipe is written to; anything else is refused. Otherwise a program
with the right to do so would put a file in the place of a device.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

READER_TIMEOUT = 10.0  # seconds that a pipe may be full before its reader counts as gone; a guess


def write_atomically(path: Path, content: str | bytes | Iterable[bytes]) -> None:
    """Write *content* to *path*; a reader sees the old file or the new one, never a part of it.

    Content in parts is written as the parts come, so that it need not fit into memory.

    Only the owner can read the new file. A device for characters, such as the null device, and a
    pipe that is being read get the content; they are not replaced.

    Raises:
        OSError: the file cannot be written; *path* is unchanged, and no partial file is left.
    """
    content = content.encode() if isinstance(content, str) else content
    parts = [content] if isinstance(content, bytes) else content
    if not is_replaceable(path):
        _write_through(path, b"".join(parts))
        return
    path = Path(os.path.realpath(path))  # of a link: what it names, even if that does not exist yet
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.writelines(parts)
        partial.replace(path)  # in one step
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def is_replaceable(path: Path) -> bool:
    """Return whether *path* is a plain file, or a link to one, or can become one.

    What this process writes as its standard output or error is not: with a new file in its place,
    the rest of the output would be lost.

    Raises:
        OSError: *path* can be neither replaced nor written to: a folder, a socket, a disk.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):  # the caller sees it when it writes
        return True
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if kind not in (stat.S_IFREG, stat.S_IFCHR, stat.S_IFIFO):
        raise OSError(errno.EINVAL, "it is neither a file nor a pipe nor a terminal", str(path))
    return kind == stat.S_IFREG and _own_stream(status) is None


def _own_stream(status: os.stat_result) -> int | None:
    """Return the descriptor of this process's standard output or error that is this file."""
    for descriptor in (1, 2):
        with suppress(OSError):  # closed
            if os.path.samestat(os.fstat(descriptor), status):
                return descriptor
    return None


def _write_through(path: Path, data: bytes) -> None:
    stream = _own_stream(os.stat(path))
    if stream is not None:
        for buffered in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                buffered.flush()  # what was printed before comes first
        descriptor = os.dup(stream)
    else:
        # Without a reader, opening a pipe fails with O_NONBLOCK, and would wait for ever without.
        flags = os.O_WRONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
        descriptor = os.open(path, flags)
    try:
        _write_all(descriptor, data, path)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes, path: Path) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view[:65_536]) :]
        except BlockingIOError:
            _wait_for_reader(descriptor, path)


def _wait_for_reader(descriptor: int, path: Path) -> None:
    import select

    if not select.select([], [descriptor], [], READER_TIMEOUT)[1]:
        raise TimeoutError(errno.ETIMEDOUT, f"nothing read it for {READER_TIMEOUT:g} s", str(path))
