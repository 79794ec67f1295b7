"""The only module that makes random numbers and ids: a test or a simulation replaces its functions.

Use it as ``from mousetrap.runtime import randomness``, so that a replaced function reaches every
caller. Nothing here is seeded unless `seeded` is asked for.
"""

from __future__ import annotations

import os
import random as _random

random = _random.random  # 0 <= x < 1
uniform = _random.uniform
urandom = os.urandom
seeded = _random.Random
system = _random.SystemRandom  # a seed does not make two processes choose the same


def new_id() -> str:
    """Return a random id of 32 hexadecimal digits; `uuid.uuid4` takes three times the time."""
    return urandom(16).hex()
