"""A TCP proxy that counts bytes: it can cut a connection after a given byte, or be slow.

`mousetrap.fault_injection.proxy.Proxy` knows the steps of the protocol. A client can connect
through both of them.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from mousetrap.fault_injection.frames import Command, CommandParser
from mousetrap.settings import Settings


@dataclass
class Cut:
    """Connection number *link* (from 0) is closed by *end* after *byte* bytes of one direction."""

    byte: int
    direction: str  # "to broker" or "from broker"
    end: str  # "RST" or "FIN"
    link: int
    triggered: threading.Event = field(default_factory=threading.Event)


class ByteProxy:
    """Forwards what clients and the broker of *settings* send.

    `passed` counts methods by name and direction, `byte_counts` bytes by connection and direction.
    `on_command` is called with connection number, direction and command, before it is forwarded.

    Threads: any; the counts are exact when the connections are closed.
    """

    def __init__(self, settings: Settings, cut: Cut | None = None) -> None:
        self._target = (settings.host, settings.port)
        self._cut = cut
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self.settings = settings.replace(host="127.0.0.1", port=self._listener.getsockname()[1])
        self.passed: Counter[tuple[str, str]] = Counter()
        self.byte_counts: list[Counter[str]] = []
        self.on_command: Callable[[int, str, Command], object] = lambda *_: None
        self.stall: Callable[[], float] = lambda: 0.0  # seconds that the next bytes are held up

    def __enter__(self) -> ByteProxy:
        threading.Thread(target=self._accept, name="rig-tap", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def cut(self) -> None:
        """Close all connections."""
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            with contextlib.suppress(OSError):
                self._connect(client)

    def _connect(self, client: socket.socket) -> None:
        broker = socket.create_connection(self._target, 10)
        broker.settimeout(None)
        for end in (client, broker):  # before the first cut
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = len(self.byte_counts)
        self.byte_counts.append(Counter())
        self._sockets += [client, broker]
        for direction, ends in (("to broker", (client, broker)), ("from broker", (broker, client))):
            relay = _Relay(self, link, direction, *ends)
            threading.Thread(target=relay.run, name="rig-tap", daemon=True).start()


class _Relay:
    """One direction of one connection."""

    def __init__(
        self,
        byte_proxy: ByteProxy,
        link: int,
        direction: str,
        source: socket.socket,
        sink: socket.socket,
    ) -> None:
        self.byte_proxy, self.link, self.direction = byte_proxy, link, direction
        self.source, self.sink = source, sink
        self.parser = CommandParser(is_client=direction == "to broker")

    def run(self) -> None:
        cut = self.byte_proxy._cut
        if cut is not None and (cut.link, cut.direction) != (self.link, self.direction):
            cut = None
        with contextlib.suppress(OSError):
            if cut is not None and cut.byte == 0:
                self.end(cut)
                return
            while data := self.source.recv(65_536):
                if stall := self.byte_proxy.stall():  # later bytes wait, too, as in TCP
                    threading.Event().wait(stall)
                passed = self.byte_proxy.byte_counts[self.link][self.direction]
                if cut is not None and passed + len(data) >= cut.byte:
                    self.send(data[: cut.byte - passed])
                    self.end(cut)
                    return
                self.send(data)
        for end in (self.sink, self.source):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def send(self, data: bytes) -> None:
        self.byte_proxy.byte_counts[self.link][self.direction] += len(data)
        for command in self.parser.feed(data):
            self.byte_proxy.passed[command.name, self.direction] += 1
            self.byte_proxy.on_command(self.link, self.direction, command)
        self.sink.sendall(data)

    def end(self, cut: Cut) -> None:
        for each in (self.sink, self.source):
            with contextlib.suppress(OSError):
                if cut.end == "RST":  # linger of zero: close sends RST instead of FIN
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    each.shutdown(socket.SHUT_RD)
                else:
                    each.shutdown(socket.SHUT_RDWR)
                each.close()
        cut.triggered.set()
