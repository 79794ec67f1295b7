"""How the embedded broker says no: RabbitMQ's reply codes, on RabbitMQ's level.

A `ChannelRefusal` closes the channel and leaves the connection; a `ConnectionRefusal` closes the
connection. The level is a property of the code (AMQP 0-9-1, "constants": soft and hard errors).
"""

from __future__ import annotations

NAMES = {
    311: "CONTENT_TOO_LARGE", 320: "CONNECTION_FORCED", 402: "INVALID_PATH", 403: "ACCESS_REFUSED",
    404: "NOT_FOUND", 405: "RESOURCE_LOCKED", 406: "PRECONDITION_FAILED", 501: "FRAME_ERROR",
    502: "SYNTAX_ERROR", 503: "COMMAND_INVALID", 504: "CHANNEL_ERROR", 505: "UNEXPECTED_FRAME",
    506: "RESOURCE_ERROR", 530: "NOT_ALLOWED", 540: "NOT_IMPLEMENTED", 541: "INTERNAL_ERROR",
}  # fmt: skip
SOFT = {311, 403, 404, 405, 406}


class Refusal(Exception):
    """Something that was asked for and is not done: code and reason, as they go over the wire."""

    def __init__(self, code: int, reason: str, *, is_soft: bool | None = None) -> None:
        self.code = code
        self.text = f"{NAMES[code]} - {reason}".encode()[:255].decode(errors="ignore")
        self.is_soft = code in SOFT if is_soft is None else is_soft
        super().__init__(self.text)


def no_queue(name: str, vhost: str) -> Refusal:
    """404 for a queue."""
    return Refusal(404, f"no queue '{name}' in vhost '{vhost}'")


def no_exchange(name: str, vhost: str) -> Refusal:
    """404 for an exchange."""
    return Refusal(404, f"no exchange '{name}' in vhost '{vhost}'")
