"""Packages of npm that tests need, in the user's cache: installed once for each version."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from mousetrap.pytest_plugin import missing


def node_package(name: str, version: str) -> Path:
    """Return a folder whose ``node_modules`` has the package; without npm skip, and fail in CI."""
    if not (shutil.which("node") and shutil.which("npm")):
        missing("no node and npm on the PATH: apt-get install nodejs npm")
    cache = user_cache_path("mousetrap-tests", appauthor=False, ensure_exists=True)
    folder = cache / f"{name.replace('/', '+')}-{version}"
    stamp = folder / "installed"
    with FileLock(f"{folder}.lock", timeout=100):
        if not stamp.exists():
            shutil.rmtree(folder, ignore_errors=True)
            command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]
            done = subprocess.run(
                [*command, str(folder), f"{name}@{version}"],
                capture_output=True, text=True, timeout=100,
            )  # fmt: skip
            if done.returncode:
                missing(f"npm could not install {name}: {done.stderr[-300:]}")
            stamp.touch()
    return folder
