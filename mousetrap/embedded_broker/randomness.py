"""Random names: the only module of this folder that asks for random bits.

`EmbeddedServer` and `ServerState` accept another function in place of `token`, so that a simulation
can make the same names in every run.
"""

from __future__ import annotations

import secrets


def token() -> str:
    """Return 22 random characters (128 bits) for the name of a queue or a consumer."""
    return secrets.token_urlsafe(16)
