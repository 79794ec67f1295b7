"""Writing a file so that nobody ever finds half of it.

Nothing here talks to a broker.
"""

from __future__ import annotations

import os
from pathlib import Path


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write *content* to *path*, for its owner only; a reader sees the old file or the new one.

    Raises:
        OSError: it cannot be written; *path* is as it was, and nothing half written is left.
    """
    data = content.encode() if isinstance(content, str) else content
    half = path.with_name(f"{path.name}.{os.getpid()}.half")
    descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        half.replace(path)  # in one step
    except BaseException:
        half.unlink(missing_ok=True)
        raise
