"""How a connection begins: login, sizes, virtual host.

Threads: the server's own.
"""

from __future__ import annotations

import asyncio
import hmac
from typing import TYPE_CHECKING, Any

from mousetrap.embedded_broker import codec
from mousetrap.embedded_broker.limits import Limits
from mousetrap.embedded_broker.refusal import Refusal
from mousetrap.embedded_broker.vhost import VirtualHost

if TYPE_CHECKING:
    from mousetrap.embedded_broker.server import ServerState

SMALLEST = 8_192  # bytes in a frame, since RabbitMQ 4.1


class Handshake:
    """What is agreed before the first channel."""

    limits: Limits
    user: str
    vhost: VirtualHost | None
    _state: ServerState
    _stage: str
    _client: dict[str, Any]
    _channel_max: int
    _frame_max: int
    _deadline: asyncio.TimerHandle | None

    def _send(self, name: str, *values: Any) -> None:
        raise NotImplementedError

    def _hang_up(self) -> None:
        raise NotImplementedError

    def _beat(self, interval: float) -> None:
        raise NotImplementedError

    def _log_in(
        self, client_properties: dict[str, Any], mechanism: str, response: bytes, locale: str
    ) -> None:
        del locale  # there is one only
        self._client = client_properties
        user, password = "", b""
        try:
            if mechanism == "PLAIN":
                _, name, password = response.split(b"\0")
                user = name.decode()
            elif mechanism == "AMQPLAIN":
                table, _ = codec.read_table(codec.long_bytes(response), 0)
                user = str(table.get("LOGIN", ""))
                password = str(table.get("PASSWORD", "")).encode()
            else:
                self._hang_up()
                return
        except (ValueError, UnicodeDecodeError):
            user, password = "", b""
        expected = self._state.users.get(user)
        if expected is None or not hmac.compare_digest(expected.encode(), password):
            why = f"Login was refused using authentication mechanism {mechanism}"
            if self.client_can("authentication_failure_close"):
                raise Refusal(403, why)
            self._hang_up()
            return
        self.user = user
        self._stage = "tune"
        limits = self.limits
        self._send("connection.tune", limits.channels, limits.frame, limits.heartbeat)

    def _tuned(self, channel_max: int, frame_max: int, heartbeat: int) -> None:
        limits = self.limits
        # RabbitMQ takes 0, which would be no bound, for more than it proposed, too
        if not (1 <= channel_max <= limits.channels and SMALLEST <= frame_max <= limits.frame):
            self._hang_up()
            return
        self._channel_max, self._frame_max = channel_max, frame_max
        self._stage = "open"
        if heartbeat:
            self._beat(heartbeat / 2)

    def _open(self, name: str) -> None:
        self.vhost = self._state.vhosts.get(name)
        if self.vhost is None:
            raise Refusal(530, f"vhost {name} not found")
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._stage = "running"
        self._send("connection.open_ok", "")

    def client_can(self, capability: str) -> bool:
        """Whether the client said that it knows an extension of the protocol."""
        known = self._client.get("capabilities")
        return isinstance(known, dict) and known.get(capability) is True
