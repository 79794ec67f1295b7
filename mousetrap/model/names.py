"""Which names queues and exchanges can have. Nothing here talks to a broker."""

from __future__ import annotations

import re

MAX_NAME_BYTES = 190  # AMQP allows 255; the rest is for a namespace and ``.retry.1.23457e-05s``
_NAME = re.compile(r"[^\x00-\x1f\x7f]+")  # AMQP allows any UTF-8; control characters confuse people
_SURROGATE = re.compile("[\ud800-\udfff]")  # bytes from a shell that are not UTF-8 become these


def name_problem(name: str) -> str | None:
    """Return what is wrong with the name of a queue or an exchange; None if nothing is."""
    if not name:
        return "is empty"
    if len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
        return f"is longer than {MAX_NAME_BYTES} bytes"
    if _SURROGATE.search(name):
        return "is not valid UTF-8"
    return None if _NAME.fullmatch(name) else "contains control characters"
