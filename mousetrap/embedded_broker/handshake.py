"""The decisions at the beginning of a connection: the login, and the sizes that are agreed on.

`connection` sends and receives; the functions here decide.
"""

from __future__ import annotations

import hmac

from mousetrap.embedded_broker import codec
from mousetrap.embedded_broker.limits import Limits

MECHANISMS = ("PLAIN", "AMQPLAIN")
MIN_FRAME_MAX = 8_192  # bytes in a frame, since RabbitMQ 4.1


def authenticate(users: dict[str, str], mechanism: str, response: bytes) -> str | None:
    """Return the user of a login by one of `MECHANISMS`; None if the name or password is wrong."""
    user, password = "", b""
    try:
        if mechanism == "PLAIN":
            _, name, password = response.split(b"\0")
            user = name.decode()
        else:
            table, _ = codec.read_table(codec.long_bytes(response), 0)
            user = str(table.get("LOGIN", ""))
            password = str(table.get("PASSWORD", "")).encode()
    except ValueError:  # also UnicodeDecodeError and Malformed
        user, password = "", b""
    expected = users.get(user)
    if expected is None or not hmac.compare_digest(expected.encode(), password):
        return None
    return user


def is_acceptable(limits: Limits, channel_max: int, frame_max: int) -> bool:
    """Whether the broker accepts the sizes that a client chose.

    As in RabbitMQ, 0 ("no limit") is more than the broker proposed, and is not accepted.
    """
    return 1 <= channel_max <= limits.channels and MIN_FRAME_MAX <= frame_max <= limits.frame
