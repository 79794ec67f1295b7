"""One client's connection: frames in, login, channels, heartbeats, blocking, closing.

An error of a client closes its own channel or connection, with RabbitMQ's reply code; the
connections of other clients go on.
Threads: the server's own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from mousetrap.embedded_broker import codec, handshake, methods
from mousetrap.embedded_broker.amqp_error import AmqpError
from mousetrap.embedded_broker.channel import Channel
from mousetrap.embedded_broker.frames import BODY, CONTENT, HEARTBEAT, METHOD, FrameWriter
from mousetrap.embedded_broker.limits import Limits
from mousetrap.embedded_broker.state import ServerState
from mousetrap.embedded_broker.vhost import VirtualHost

log = logging.getLogger(__name__)
PRODUCT = "mousetrap embedded broker"  # sent to every client, so that it can recognise the broker
PROTOCOL_HEADER = b"AMQP\0\0\x09\x01"
NO_METHOD = b"\0\0\0\0"  # class and method number in a close that no method caused
CLOSE_TIMEOUT = 5.0  # seconds that a client has to answer a connection.close; a guess
CAPABILITIES = (
    "publisher_confirms", "exchange_exchange_bindings", "basic.nack", "consumer_cancel_notify",
    "connection.blocked", "consumer_priorities", "authentication_failure_close",
    "per_consumer_qos",
)  # fmt: skip


class Connection(asyncio.Protocol):
    """The connection of one client."""

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self.limits: Limits = state.limits
        self.vhost: VirtualHost | None = None
        self.user = ""
        self.peer = ""
        self.channels: dict[int, Channel] = {}
        self.is_ending = False  # its channels are being released, one after the other
        self._stage = "header"  # then start, tune, open, running, closing, closed
        self._buffer = bytearray()
        self._writer = FrameWriter(state.loop, self.limits.first_frame)
        self._to_confirm: list[Callable[[], None]] = []
        self._transport: asyncio.Transport | None = None
        self._client: dict[str, Any] = {}  # client properties of its start_ok
        self._channel_max = self.limits.channels
        self._heartbeat: asyncio.TimerHandle | None = None
        self._has_received = True  # since the last heartbeat check
        self._silent_checks = 0
        self._is_blocked = False
        self._deadline: asyncio.TimerHandle | None = None  # of the handshake, then of the close

    # the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the protocol header, for a limited time."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = self._writer.transport = transport
        peer = transport.get_extra_info("peername") or ("?", 0)
        self.peer = f"{peer[0]}:{peer[1]}"
        self._deadline = self._state.loop.call_later(self.limits.handshake, transport.abort)
        if len(self._state.connections) >= self.limits.connections:
            transport.abort()
        self._state.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio calls it with exc
        """Requeue what the client had not settled; delete its exclusive queues."""
        self._stage = "closed"
        self._writer.is_closed = True
        self._state.connections.discard(self)
        for timer in (self._heartbeat, self._deadline):
            if timer is not None:
                timer.cancel()
        self._release()

    def pause_writing(self) -> None:
        """Deliver nothing more until the client has read."""
        self._writer.can_write = False

    def resume_writing(self) -> None:
        """Deliver again."""
        self._writer.can_write = True
        for channel in list(self.channels.values()):
            for consumer in list(channel.consumers.values()):
                consumer.queue.recheck_full_consumers()
                consumer.queue.deliver()

    def data_received(self, data: bytes) -> None:
        """Carry out every complete frame, then confirm, then send."""
        if self._stage == "closed":
            return  # what a client still sends after the close is read, and dropped
        self._has_received = True
        self._buffer += data
        self._writer.is_collecting = True
        try:
            self._read_frames()
        except Exception:  # a bug of the broker closes this connection, and the server goes on
            log.exception("the embedded broker failed on a frame from %s", self.peer)
            self._close(AmqpError(541, "the embedded broker failed: see its log"))
        finally:
            self._writer.is_collecting = False
        if self._stage == "running":
            for flush_confirms in self._to_confirm:
                flush_confirms()
        self._to_confirm.clear()
        self._writer.flush()

    def _read_frames(self) -> None:
        if self._stage == "header" and not self._read_protocol_header():
            return
        buffer, at = self._buffer, 0
        while self._stage != "closed" and len(buffer) - at >= 8:
            kind = buffer[at]
            number = buffer[at + 1] << 8 | buffer[at + 2]
            size = int.from_bytes(buffer[at + 3 : at + 7], "big")
            if size + 8 > self._writer.frame_max:
                why = f"frame of {size + 8} bytes, at most {self._writer.frame_max} were agreed"
                self._close(AmqpError(501, why))
                at = len(buffer)
                break
            end = at + 8 + size
            if len(buffer) < end:
                break
            if buffer[end - 1] != 0xCE:
                self._close(AmqpError(501, "invalid frame end marker"))
                at = len(buffer)
                break
            payload = bytes(buffer[at + 7 : end - 1])
            at = end
            self._on_frame(kind, number, payload)
        del buffer[:at]

    def _read_protocol_header(self) -> bool:
        size = len(PROTOCOL_HEADER)
        if len(self._buffer) < size and PROTOCOL_HEADER.startswith(self._buffer):
            return False
        if self._buffer[:size] != PROTOCOL_HEADER:
            self._writer.write(PROTOCOL_HEADER)  # the one that the client should have sent
            self._hang_up()
            return False
        del self._buffer[:size]
        self._stage = "start"
        server = {
            "product": PRODUCT,
            "version": self._state.version,
            "platform": "Python",
            "information": "in memory: messages are lost when the process ends",
            "capabilities": dict.fromkeys(CAPABILITIES, True),
        }
        self._send("connection.start", 0, 9, server, b"PLAIN AMQPLAIN", b"en_US")
        return True

    def _on_frame(self, kind: int, number: int, payload: bytes) -> None:
        channel = self.channels.get(number)
        try:
            if kind == HEARTBEAT:
                if number or payload:
                    raise AmqpError(501, "a heartbeat with content")
                return
            if kind not in (METHOD, CONTENT, BODY):
                raise AmqpError(501, f"there is no frame type {kind}")
            if self._stage == "closing" or number == 0:
                self._on_connection_frame(kind, payload)
            elif self._stage != "running":
                raise AmqpError(503, "a channel before the connection is open")
            elif channel is None:
                self._open_channel(kind, number, payload)
            else:
                with channel.vhost.deferring_dead_letters():
                    if kind == METHOD:
                        channel.on_method(payload)
                    elif channel.is_closing:
                        pass  # content that the client sent before it knew of the close
                    elif kind == CONTENT:
                        channel.publishes.on_header(payload)
                    else:
                        channel.publishes.on_body(payload)
        except AmqpError as error:
            if error.is_channel_error and channel is not None and number:
                failed = payload[:4] if kind == METHOD else methods.ID_OF["basic.publish"]
                channel.close_with(error, failed)
            else:
                self._close(error, payload[:4] if kind == METHOD else NO_METHOD, channel)

    def _open_channel(self, kind: int, number: int, payload: bytes) -> None:
        name = methods.NAME_OF.get(payload[:4]) if kind == METHOD else None
        if name == "channel.close_ok":
            return  # it is late: both sides closed the channel at the same time
        if name != "channel.open":
            raise AmqpError(504, f"expected 'channel.open' on channel {number}")
        if len(self.channels) >= self._channel_max:
            raise AmqpError(530, f"number of channels opened has reached {self._channel_max}")
        assert self.vhost is not None
        channel = self.channels[number] = Channel(self, self.vhost, self._writer, number)
        channel.output.send("channel.open_ok", b"")

    # the methods of channel 0

    def _on_connection_frame(self, kind: int, payload: bytes) -> None:
        if kind != METHOD:
            if self._stage == "closing":
                return
            raise AmqpError(505, "content on channel 0")
        try:
            name, arguments = methods.decode(payload)
        except KeyError:
            raise AmqpError(540, f"there is no method {payload[:4]!r}") from None
        except codec.Malformed as error:
            raise AmqpError(error.code, str(error)) from None
        if name == "connection.close":
            self._release()
            self._send("connection.close_ok")
            self._hang_up()
        elif self._stage == "closing":
            if name == "connection.close_ok":
                self._hang_up()
        elif (self._stage, name) == ("start", "connection.start_ok"):
            self._client = arguments["client_properties"]
            self._log_in(arguments["mechanism"], arguments["response"])
        elif (self._stage, name) == ("tune", "connection.tune_ok"):
            self._tune(**arguments)
        elif (self._stage, name) == ("open", "connection.open"):
            self._open(arguments["virtual_host"])
        elif (self._stage, name) == ("running", "connection.update_secret"):
            self._send("connection.update_secret_ok")
        elif name.startswith("connection."):
            raise AmqpError(503, f"{name} now")
        else:
            raise AmqpError(503, f"{name} on channel 0")

    def _log_in(self, mechanism: str, response: bytes) -> None:
        if mechanism not in handshake.MECHANISMS:
            self._hang_up()
            return
        user = handshake.authenticate(self._state.users, mechanism, response)
        if user is None:
            if self.client_supports("authentication_failure_close"):
                why = f"Login was refused using authentication mechanism {mechanism}"
                raise AmqpError(403, why)
            self._hang_up()
            return
        self.user = user
        self._stage = "tune"
        limits = self.limits
        self._send("connection.tune", limits.channels, limits.frame, limits.heartbeat)

    def _tune(self, channel_max: int, frame_max: int, heartbeat: int) -> None:
        if not handshake.is_acceptable(self.limits, channel_max, frame_max):
            self._hang_up()
            return
        self._channel_max, self._writer.frame_max = channel_max, frame_max
        self._stage = "open"
        if heartbeat:
            self._check_heartbeat(heartbeat / 2)

    def _open(self, name: str) -> None:
        self.vhost = self._state.vhosts.get(name)
        if self.vhost is None:
            raise AmqpError(530, f"vhost {name} not found")
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._stage = "running"
        self._send("connection.open_ok", "")

    def client_supports(self, capability: str) -> bool:
        """Whether the client announced this extension of the protocol."""
        known = self._client.get("capabilities")
        return isinstance(known, dict) and known.get(capability) is True

    # heartbeats and blocking

    def _check_heartbeat(self, interval: float) -> None:
        """Send a heartbeat if nothing else was sent; disconnect a client that sends nothing.

        *interval* is half the agreed heartbeat. Four silent checks are two missed heartbeats, as in
        RabbitMQ. The broker does not read from a blocked client, so its silence does not count.
        """
        if not self._writer.has_written:
            self._writer.write(b"\x08\0\0\0\0\0\0\xce")
            self._writer.flush()
        is_silent = not (self._has_received or self._is_blocked)
        self._silent_checks = self._silent_checks + 1 if is_silent else 0
        if self._silent_checks >= 4 and self._transport is not None:
            self._transport.abort()
            return
        self._has_received = self._writer.has_written = False
        self._heartbeat = self._state.loop.call_later(interval, self._check_heartbeat, interval)

    def block_if_memory_is_short(self) -> None:
        """If the broker is short of memory, read no more from this client until it is not."""
        if self._state.is_memory_short and not self._is_blocked:
            self._is_blocked = True
            if self.client_supports("connection.blocked"):
                self._send("connection.blocked", "low on memory")
            if self._transport is not None:
                self._transport.pause_reading()

    def unblock(self) -> None:
        """Read again from a client that was blocked."""
        if self._is_blocked and self._stage == "running":
            self._is_blocked = False
            if self.client_supports("connection.blocked"):
                self._send("connection.unblocked")
            if self._transport is not None:
                self._transport.resume_reading()

    def confirm_later(self, flush_confirms: Callable[[], None]) -> None:
        """Call *flush_confirms* when everything that was read has been carried out."""
        self._to_confirm.append(flush_confirms)

    # closing

    def _close(
        self, error: AmqpError, method: bytes = NO_METHOD, at_fault: Channel | None = None
    ) -> None:
        if self._stage in ("closing", "closed"):
            return
        self._release(at_fault)
        if self._stage in ("start", "tune") and error.code != 403:
            self._hang_up()  # as RabbitMQ, which gives no reason before the login
            return
        ids = int.from_bytes(method[:2], "big"), int.from_bytes(method[2:4], "big")
        self._send("connection.close", error.code, error.text, *ids)
        self._stage = "closing"
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._state.loop.call_later(CLOSE_TIMEOUT, self._hang_up)

    def shut_down(self) -> None:
        """Close because the broker stops."""
        self._close(AmqpError(320, "broker forced connection closure with reason 'shutdown'"))
        self._stage = "closed"
        self._writer.close()

    def _hang_up(self) -> None:
        """Send nothing more; close when the client has closed, or did not in time.

        A socket that is closed with unread data is reset, and the client loses what it has not read
        yet: the answer to its connection.close.
        """
        if self._stage == "closed":
            return
        self._stage = "closed"
        self._writer.close_for_writing()
        if self._transport is not None:
            self._transport.resume_reading()  # of a blocked client
            if self._deadline is not None:
                self._deadline.cancel()
            self._deadline = self._state.loop.call_later(CLOSE_TIMEOUT, self._transport.abort)

    def _release(self, at_fault: Channel | None = None) -> None:
        """Release all channels and delete the connection's exclusive queues.

        As in RabbitMQ, the channel *at_fault* comes first, then the others by number.
        """
        self.is_ending = True
        channels, self.channels = self.channels, {}
        if self.vhost is not None:
            # deferred, so that the dead letters of one channel are not delivered to a consumer of
            # the next one, which ends as well
            with self.vhost.deferring_dead_letters():
                for channel in sorted(
                    channels.values(), key=lambda each: (each is not at_fault, each.number)
                ):
                    channel.release()
            for queue in [each for each in self.vhost.queues.values() if each.owner is self]:
                self.vhost.delete_queue(queue)

    def remove_channel(self, number: int) -> None:
        """Free the number of a channel that is closed."""
        self.channels.pop(number, None)

    def _send(self, name: str, *values: Any) -> None:
        self._writer.send_frame(METHOD, 0, methods.encode(name, *values))

    def overview(self) -> dict[str, Any]:
        """Return the state of the whole broker, as plain data."""
        return self._state.overview()

    def describe(self) -> dict[str, Any]:
        """Return the facts about this connection for the overview."""
        return {
            "peer": self.peer,
            "user": self.user,
            "vhost": self.vhost.name if self.vhost else None,
            "channels": len(self.channels),
            "is_blocked": self._is_blocked,
            "client": self._client.get("product"),
        }
