"""A temporary folder ends with the process that made it."""

from __future__ import annotations

import subprocess
import sys

from mousetrap.runtime.temporary_folder import TemporaryFolder

PROGRAM = """
import os, sys
from mousetrap.runtime.temporary_folder import TemporaryFolder
folder = TemporaryFolder("test-")
if os.fork() == 0:
    folder.close()
    sys.exit()  # with everything that is registered for the end of a program
os.wait()
print(folder.path.exists(), folder.path, flush=True)
"""


def test_folder_is_deleted_when_it_is_closed():
    """With what is in it; a second close does nothing."""
    folder = TemporaryFolder("test-")
    (folder.path / "file").touch()

    folder.close()
    folder.close()

    assert not folder.path.exists()


def test_folder_outlives_a_forked_child_and_ends_with_its_process(tmp_path):
    """A child that closes it, or ends, deletes nothing of its parent."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=30
    )
    existed, _, path = done.stdout.strip().partition(" ")

    assert existed == "True"
    assert not (tmp_path / path).exists()
