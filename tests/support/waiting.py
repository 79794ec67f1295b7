"""Waiting for a condition where there is nothing to wait on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")

INTERVAL = 0.02  # seconds between two checks


def wait_for(condition: Callable[[], Found], timeout: float = 20.0) -> Found:
    """Call *condition* until it returns something true, and return that.

    Raises:
        AssertionError: it returned nothing true within *timeout* seconds.
    """
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while not (found := condition()):
        assert time.monotonic() < deadline, f"the condition was not met within {timeout:g} s"
        pause.wait(INTERVAL)
    return found
