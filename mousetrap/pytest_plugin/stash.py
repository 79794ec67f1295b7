"""What the plugin keeps with pytest's session and with each item.

The hooks in `mousetrap.pytest_plugin` and the modules that they import on demand share these keys.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mousetrap.pytest_plugin.test_namespace import TestNamespace

# With the session's config. The value is a `SessionBroker`, whose module imports this one.
SESSION_BROKER: pytest.StashKey[Any] = pytest.StashKey()
# The entries of pyproject.toml by notebook; None if it does not mention mousetrap.
NOTEBOOK_ENTRIES: pytest.StashKey[dict[Path, dict[str, Any]] | None] = pytest.StashKey()
_REQUEST_FOLDER: pytest.StashKey[str] = pytest.StashKey()

# With an item.
NEEDS_NAMESPACE: pytest.StashKey[bool] = pytest.StashKey()  # only for notebooks
NAMESPACE_ERROR: pytest.StashKey[str] = pytest.StashKey()  # why a notebook has no namespace
TEST_NAMESPACE: pytest.StashKey[TestNamespace] = pytest.StashKey()

WORKER_INPUT = "mousetrap_request_folder"
"""The key in the ``workerinput`` of pytest-xdist under which a worker finds the request folder."""


def request_folder(config: pytest.Config) -> str:
    """Return the path of the folder in which xdist's workers request the session's broker.

    The controller chooses the path; the first worker that needs a broker makes the folder.
    """
    from mousetrap.runtime import randomness  # not at the top: every pytest imports this module

    given: str | None = getattr(config, "workerinput", {}).get(WORKER_INPUT)
    name = os.path.join(tempfile.gettempdir(), f"mousetrap-{randomness.new_id()}")
    return given or config.stash.setdefault(_REQUEST_FOLDER, name)
