"""The seed of a test session: one number from which all random choices follow."""

from __future__ import annotations

import os

SEED_VARIABLE = "RIG_SEED"  # in the environment; with it a session makes the same choices again


def session_seed() -> int:
    """Return the seed: from the environment, or drawn once and passed to child processes."""
    if not os.environ.get(SEED_VARIABLE):
        os.environ[SEED_VARIABLE] = str(int.from_bytes(os.urandom(4), "big"))
    return int(os.environ[SEED_VARIABLE])
