"""A temporary folder that ends with the process which made it, and not with a forked child."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path


class TemporaryFolder:
    """A new folder for this user only, deleted by `close` or when this process ends.

    `tempfile.TemporaryDirectory` would delete it when any forked child ends, too.
    """

    def __init__(self, prefix: str) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=prefix))
        self._close = weakref.finalize(self, _delete, self.path, os.getpid())

    def close(self) -> None:
        """Delete the folder and what is in it; files that cannot be deleted stay."""
        self._close()


def _delete(path: Path, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(path, ignore_errors=True)
