"""The sockets between a notebook's kernel and the program that runs it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any


def kernel_sockets(folder: Path, language: str) -> Any:
    """Return traitlets that connect a kernel and its client by Unix sockets in *folder*.

    By default jupyter_client finds five free ports and closes them; the kernel opens them about a
    second later. Two kernels that start at the same time can get the same port, and then one of
    them dies (nteract/papermill#511; measured: 17 of 10,000 pairs).
    """
    from traitlets.config import Config

    prefix = str(folder / "kernel")
    # Some kernels of other languages do not support it. The path of a socket has a maximum length:
    # 103 bytes on macOS, and zmq adds "-1".
    if sys.platform == "win32" or language != "python" or len(os.fsencode(prefix)) > 95:
        return Config()
    return Config({"KernelManager": {"transport": "ipc", "ip": prefix}})


def language_of(document: Any) -> str:
    """Return the language of a notebook's kernel, by its metadata."""
    metadata = document.metadata
    return (
        metadata.get("language_info", {}).get("name")
        or metadata.get("kernelspec", {}).get("language")
        or "python"
    )
