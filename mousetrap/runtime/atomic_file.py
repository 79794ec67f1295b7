"""Writing a file in one step, so that no reader ever sees half of it."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write *content* to *path*; a reader sees the old file or the new one, never a part of it.

    Only the owner can read the new file.

    Raises:
        OSError: the file cannot be written; *path* is unchanged, and no partial file is left.
    """
    data = content.encode() if isinstance(content, str) else content
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        partial.replace(path)  # in one step
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
