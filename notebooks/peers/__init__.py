"""Other ways to move messages through RabbitMQ with Python, each in a documented way.

One module each, all with a class `Peer` of the same shape (see `peers.peer`), so that the
benchmarks can run them side by side (`peers.race`). What each peer is said to guarantee is read
off its wire by `tests/project/test_benchmarks.py`. A peer that is
not installed is left out, and the output says so.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

NAMES = [
    "bare_socket", "ours", "pika_select", "pika_blocking", "aio_pika", "faststream", "rabbitkit",
    "dramatiq", "celery", "tutorial",
]  # fmt: skip


def peer_of(name: str) -> Any:
    """The class `Peer` of the module of that name; ImportError if its library is missing."""
    return import_module(f"peers.{name}").Peer
