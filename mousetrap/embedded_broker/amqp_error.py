"""Errors that the broker reports to a client: RabbitMQ's reply codes and what each one closes.

AMQP 0-9-1 has two levels of error. A channel error ("soft error") closes the channel and leaves the
connection open; a connection error ("hard error") closes the connection. The reply code decides the
level (AMQP 0-9-1, "constants"); on channel 0 every error closes the connection.
"""

from __future__ import annotations

REPLY_NAMES = {
    311: "CONTENT_TOO_LARGE", 320: "CONNECTION_FORCED", 402: "INVALID_PATH", 403: "ACCESS_REFUSED",
    404: "NOT_FOUND", 405: "RESOURCE_LOCKED", 406: "PRECONDITION_FAILED", 501: "FRAME_ERROR",
    502: "SYNTAX_ERROR", 503: "COMMAND_INVALID", 504: "CHANNEL_ERROR", 505: "UNEXPECTED_FRAME",
    506: "RESOURCE_ERROR", 530: "NOT_ALLOWED", 540: "NOT_IMPLEMENTED", 541: "INTERNAL_ERROR",
}  # fmt: skip
CHANNEL_ERRORS = {311, 403, 404, 405, 406}


class AmqpError(Exception):
    """A request of a client failed; `code` and `text` are sent to it.

    `text` is the code's name and *reason*, cut to 255 bytes, the maximum of a short string.
    """

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.text = f"{REPLY_NAMES[code]} - {reason}".encode()[:255].decode(errors="ignore")
        super().__init__(self.text)

    @property
    def is_channel_error(self) -> bool:
        """Whether it closes the channel only, and not the connection."""
        return self.code in CHANNEL_ERRORS


def no_queue(name: str, vhost: str) -> AmqpError:
    """Return the 404 error for a queue that does not exist."""
    return AmqpError(404, f"no queue '{name}' in vhost '{vhost}'")


def no_exchange(name: str, vhost: str) -> AmqpError:
    """Return the 404 error for an exchange that does not exist."""
    return AmqpError(404, f"no exchange '{name}' in vhost '{vhost}'")
