"""Gives the distribution its links: a hook of hatchling, which builds wheel and sdist.

The repository's address is written nowhere in it. A release is built by GitHub, which names the
repository in two variables; a fork's wheel links to the fork. A build from an sdist takes the links
of the sdist, any other build has none.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from email import message_from_string
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface


class ProjectUrls(MetadataHookInterface):
    """Fills in ``project.urls``, which pyproject.toml declares as dynamic."""

    def update(self, metadata: dict) -> None:
        """Called by hatchling with the table ``project``."""
        metadata["urls"] = project_urls(Path(self.root), os.environ)


def project_urls(root: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the links by their labels; *root* is the folder that is built."""
    if (built := root / "PKG-INFO").is_file():  # an sdist
        lines = message_from_string(built.read_text(encoding="utf-8")).get_all("Project-URL") or []
        return dict(line.split(", ", 1) for line in lines)
    server, name = environment.get("GITHUB_SERVER_URL"), environment.get("GITHUB_REPOSITORY")
    if not server or not name:
        return {}
    owner, _, project = name.partition("/")
    repository = f"{server}/{name}"
    return {
        "Repository": repository,
        "Documentation": f"https://{owner.lower()}.github.io/{project}/",
        "Changelog": f"{repository}/blob/main/mousetrap/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }
