"""The only module that makes random numbers and ids, so that a test or a simulation can replace it.

Use it as ``from mousetrap.runtime import randomness``, so that a replaced function reaches every
caller. Only `seeded` returns numbers that can be repeated.
"""

from __future__ import annotations

import os
import random as _random

random = _random.random  # 0 <= x < 1
uniform = _random.uniform
urandom = os.urandom
seeded = _random.Random  # seeded(7).random()
system = _random.SystemRandom  # ignores seeds: two processes do not choose the same numbers


def new_id() -> str:
    """Return a random id of 32 hexadecimal digits; `uuid.uuid4` takes three times as long."""
    return urandom(16).hex()
