"""A connection: from the first byte to the last, frames in and out, heartbeats, blocking.

Whatever a client does wrong ends its own connection, with RabbitMQ's code, and nobody else's.
Threads: the server's own.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from mousetrap.embedded_broker import codec, methods
from mousetrap.embedded_broker.channel import Channel
from mousetrap.embedded_broker.handshake import Handshake
from mousetrap.embedded_broker.limits import Limits
from mousetrap.embedded_broker.publishing import Publishing
from mousetrap.embedded_broker.refusal import Refusal
from mousetrap.embedded_broker.vhost import VirtualHost

if TYPE_CHECKING:
    from mousetrap.embedded_broker.server import ServerState

log = logging.getLogger(__name__)
PRODUCT = "mousetrap embedded broker"  # in the greeting, by which others know it
HEADER = b"AMQP\0\0\x09\x01"
METHOD, CONTENT, BODY, HEARTBEAT = 1, 2, 3, 8
CLOSE_TIME = 5.0  # seconds that a client has to answer our close; a guess
CAPABILITIES = (
    "publisher_confirms", "exchange_exchange_bindings", "basic.nack", "consumer_cancel_notify",
    "connection.blocked", "consumer_priorities", "authentication_failure_close",
    "per_consumer_qos",
)  # fmt: skip


class Connection(Handshake, asyncio.Protocol):
    """One client."""

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self.limits: Limits = state.limits
        self.vhost: VirtualHost | None = None
        self.user = ""
        self.peer = ""
        self.channels: dict[int, Channel] = {}
        self.can_write = True
        self.is_ending = False  # its channels are released, one after the other
        self._stage = "header"  # then start, tune, open, running, closing, closed
        self._buffer = bytearray()
        self._out: list[bytes] = []
        self._to_confirm: list[Publishing] = []
        self._transport: asyncio.Transport | None = None
        self._client: dict[str, Any] = {}
        self._frame_max = self.limits.first_frame
        self._channel_max = self.limits.channels
        self._heartbeat: asyncio.TimerHandle | None = None
        self._heard = self._sent = True
        self._silent = 0
        self._is_blocked = False
        self._deadline: asyncio.TimerHandle | None = None
        self._is_reading = False

    # the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the greeting, not for ever."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        peer = transport.get_extra_info("peername") or ("?", 0)
        self.peer = f"{peer[0]}:{peer[1]}"
        self._deadline = self._state.loop.call_later(self.limits.handshake, transport.abort)
        if len(self._state.connections) >= self.limits.connections:
            transport.abort()
        self._state.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's
        """Put back what the client held, delete what was its own."""
        self._stage = "closed"
        self._state.connections.discard(self)
        for timer in (self._heartbeat, self._deadline):
            if timer is not None:
                timer.cancel()
        self._release()

    def pause_writing(self) -> None:
        """Deliver no more until the client has read."""
        self.can_write = False

    def resume_writing(self) -> None:
        """Deliver again."""
        self.can_write = True
        for channel in list(self.channels.values()):
            for consumer in list(channel.consumers.values()):
                consumer.queue.unblock()
                consumer.queue.deliver()

    def data_received(self, data: bytes) -> None:
        """Carry out every frame that is complete."""
        self._heard = True
        self._buffer += data
        self._is_reading = True
        try:
            self._read()
        except Exception:  # a fault of ours ends this connection, too, and not the server
            log.exception("the embedded broker failed on a frame from %s", self.peer)
            self._close(Refusal(541, "the embedded broker failed: see its log"), b"\0\0\0\0")
        finally:
            self._is_reading = False
        for channel in self._to_confirm:
            if not channel.is_closing and self._stage == "running":
                channel.flush_confirms()
        self._to_confirm.clear()
        self.flush()

    def _read(self) -> None:
        if self._stage == "header" and not self._greeted():
            return
        buffer, at = self._buffer, 0
        while self._stage != "closed" and len(buffer) - at >= 8:
            kind = buffer[at]
            number = buffer[at + 1] << 8 | buffer[at + 2]
            size = int.from_bytes(buffer[at + 3 : at + 7], "big")
            if size + 8 > self._frame_max:
                why = f"frame of {size + 8} bytes, at most {self._frame_max} were agreed"
                self._close(Refusal(501, why), b"\0\0\0\0")
                at = len(buffer)
                break
            end = at + 8 + size
            if len(buffer) < end:
                break
            if buffer[end - 1] != 0xCE:
                self._close(Refusal(501, "invalid frame end marker"), b"\0\0\0\0")
                at = len(buffer)
                break
            payload = bytes(buffer[at + 7 : end - 1])
            at = end
            self._on_frame(kind, number, payload)
        del buffer[:at]

    def _greeted(self) -> bool:
        if len(self._buffer) < len(HEADER) and HEADER.startswith(self._buffer):
            return False
        if self._buffer[: len(HEADER)] != HEADER:
            self._write(HEADER)  # what would have been right
            self._hang_up()
            return False
        del self._buffer[: len(HEADER)]
        self._stage = "start"
        server = {
            "product": PRODUCT,
            "version": self._state.version,
            "platform": "Python",
            "information": "in memory: nothing outlives the process",
            "capabilities": dict.fromkeys(CAPABILITIES, True),
        }
        self._send("connection.start", 0, 9, server, b"PLAIN AMQPLAIN", b"en_US")
        return True

    def _on_frame(self, kind: int, number: int, payload: bytes) -> None:
        method = payload[:4] if kind == METHOD else b"\0\0\0\0"
        channel = self.channels.get(number)
        try:
            if kind == HEARTBEAT:
                if number or payload:
                    raise Refusal(501, "a heartbeat with content")
                return
            if kind not in (METHOD, CONTENT, BODY):
                raise Refusal(501, f"there is no frame type {kind}")
            if self._stage == "closing" or number == 0:
                self._on_connection_frame(kind, payload)
            elif self._stage != "running":
                raise Refusal(503, "a channel before the connection is open")
            elif channel is None:
                self._open_channel(kind, number, payload)
            else:
                with channel.vhost.posting_later():
                    if kind == METHOD:
                        channel.on_method(payload)
                    elif kind == CONTENT:
                        channel.on_header(payload)
                    else:
                        channel.on_body(payload)
        except Refusal as refusal:
            if refusal.is_soft and channel is not None and number:
                channel.refuse(refusal, method if kind == METHOD else b"\x00\x3c\x00\x28")
            else:
                self._close(refusal, method, channel)

    def _open_channel(self, kind: int, number: int, payload: bytes) -> None:
        name = methods.NAME_OF.get(payload[:4]) if kind == METHOD else None
        if name == "channel.close_ok":
            return  # late, for a channel that both have closed
        if name != "channel.open":
            raise Refusal(504, f"expected 'channel.open' on channel {number}")
        if len(self.channels) >= self._channel_max:
            raise Refusal(530, f"number of channels opened has reached {self._channel_max}")
        channel = self.channels[number] = Channel(self, number)
        channel.send("channel.open_ok", b"")

    # the methods of channel 0

    def _on_connection_frame(self, kind: int, payload: bytes) -> None:
        if kind != METHOD:
            if self._stage == "closing":
                return
            raise Refusal(505, "content on channel 0")
        try:
            name, arguments = methods.decode(payload)
        except KeyError:
            raise Refusal(540, f"there is no method {payload[:4]!r}") from None
        except codec.Malformed as error:
            raise Refusal(error.code, str(error)) from None
        if name == "connection.close":
            self._release()
            self._send("connection.close_ok")
            self._hang_up()
        elif self._stage == "closing":
            if name == "connection.close_ok":
                self._hang_up()
        elif (self._stage, name) == ("start", "connection.start_ok"):
            self._log_in(**arguments)
        elif (self._stage, name) == ("tune", "connection.tune_ok"):
            self._tuned(**arguments)
        elif (self._stage, name) == ("open", "connection.open"):
            self._open(arguments["virtual_host"])
        elif (self._stage, name) == ("running", "connection.update_secret"):
            self._send("connection.update_secret_ok")
        elif name.startswith("connection."):
            raise Refusal(503, f"{name} now")
        else:
            raise Refusal(503, f"{name} on channel 0")

    @property
    def open_vhost(self) -> VirtualHost:
        """The virtual host, once it is chosen."""
        assert self.vhost is not None
        return self.vhost

    # heartbeats and blocking

    def _beat(self, interval: float) -> None:
        if not self._sent:
            self._write(b"\x08\0\0\0\0\0\0\xce")
            self.flush()
        # four halves, as RabbitMQ: two missed heartbeats. Who is not read cannot be heard.
        self._silent = 0 if self._heard or self._is_blocked else self._silent + 1
        if self._silent >= 4 and self._transport is not None:
            self._transport.abort()
            return
        self._heard = self._sent = False
        self._heartbeat = self._state.loop.call_later(interval, self._beat, interval)

    def has_published(self) -> None:
        """While memory is short, read no further from who publishes."""
        if self._state.is_short and not self._is_blocked:
            self._is_blocked = True
            if self.client_can("connection.blocked"):
                self._send("connection.blocked", "low on memory")
            if self._transport is not None:
                self._transport.pause_reading()

    def unblock(self) -> None:
        """Read again."""
        if self._is_blocked and self._stage == "running":
            self._is_blocked = False
            if self.client_can("connection.blocked"):
                self._send("connection.unblocked")
            if self._transport is not None:
                self._transport.resume_reading()

    def confirm_later(self, channel: Publishing) -> None:
        """Confirm what was published when everything that was read has been done."""
        self._to_confirm.append(channel)

    # the end

    def _close(self, refusal: Refusal, method: bytes, at_fault: Channel | None = None) -> None:
        if self._stage in ("closing", "closed"):
            return
        self._release(at_fault)
        if self._stage in ("start", "tune") and refusal.code != 403:
            self._hang_up()  # as RabbitMQ, which tells nobody anything before the login
            return
        numbers = int.from_bytes(method[:2], "big"), int.from_bytes(method[2:4], "big")
        self._send("connection.close", refusal.code, refusal.text, *numbers)
        self._stage = "closing"
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._state.loop.call_later(CLOSE_TIME, self._hang_up)

    def shut_down(self) -> None:
        """Close because the broker ends."""
        self._close(
            Refusal(320, "broker forced connection closure with reason 'shutdown'"), b"\0" * 4
        )
        self._hang_up()

    def _hang_up(self) -> None:
        self.flush()
        self._stage = "closed"
        if self._transport is not None:
            self._transport.close()

    def _release(self, at_fault: Channel | None = None) -> None:
        self.is_ending = True
        channels, self.channels = self.channels, {}
        if self.vhost is not None:
            with self.vhost.posting_later():  # dead letters reach no consumer that ends with it
                # as in RabbitMQ: the one at fault, then the others by number
                for channel in sorted(
                    channels.values(), key=lambda each: (each is not at_fault, each.number)
                ):
                    channel.release()
            for queue in [each for each in self.vhost.queues.values() if each.owner is self]:
                self.vhost.delete_queue(queue)

    def forget(self, channel: Channel) -> None:
        """Free the number of a channel that is closed."""
        self.channels.pop(channel.number, None)

    # frames out

    def _send(self, name: str, *values: Any) -> None:
        self.send_frame(METHOD, 0, methods.encode(name, *values))

    def send_frame(self, kind: int, number: int, payload: bytes) -> None:
        """Send a frame, with others of this moment."""
        size = len(payload)
        self._write(
            b"%c%b%b%b\xce" % (kind, number.to_bytes(2, "big"), size.to_bytes(4, "big"), payload)
        )

    def send_content(self, number: int, method: bytes, properties: bytes, body: bytes) -> None:
        """Send a method, a content header and the body in as many frames as it takes."""
        self.send_frame(METHOD, number, method)
        header = b"\x00\x3c\0\0" + len(body).to_bytes(8, "big") + properties
        self.send_frame(CONTENT, number, header)
        most = self._frame_max - 8
        for start in range(0, len(body), most):
            self.send_frame(BODY, number, body[start : start + most])

    def _write(self, data: bytes) -> None:
        if self._stage == "closed":
            return
        if not self._out and not self._is_reading:
            self._state.loop.call_soon(self.flush)
        self._out.append(data)
        if len(self._out) > 200:  # a slow reader is noticed before everything is in its buffer
            self.flush()

    def flush(self) -> None:
        """Hand what was collected to the system in one write."""
        if self._out and self._transport is not None and not self._transport.is_closing():
            self._sent = True
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def overview(self) -> dict[str, Any]:
        """Return the state of the whole broker, as plain data."""
        return self._state.overview()

    def describe(self) -> dict[str, Any]:
        """Return what the management face shows."""
        return {
            "peer": self.peer,
            "user": self.user,
            "vhost": self.vhost.name if self.vhost else None,
            "channels": len(self.channels),
            "is_blocked": self._is_blocked,
            "client": self._client.get("product"),
        }
