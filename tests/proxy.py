"""A TCP proxy on loopback whose wires can be cut or held: what a bad network does, on demand."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

from mousetrap.settings import Settings


class Proxy:
    """Forwards bytes both ways between a free port and the broker.

    `cut` resets every connection; `hold` swallows what the broker answers from now on, so that the
    link looks alive and says nothing; `refuse` takes no new connections until `accept`.
    """

    def __init__(self, settings: Settings) -> None:
        self._target = (settings.host, settings.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._held = threading.Event()
        self._refusing = threading.Event()
        self.connections = 0  # how many were asked for so far
        self._changed = threading.Condition()
        self.settings = settings.but(host="127.0.0.1", port=self._listener.getsockname()[1])

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Reset all connections at once (RST in both directions)."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    # linger of zero: close sends RST instead of FIN
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    end.shutdown(socket.SHUT_RD)
                    end.close()

    def hold(self) -> None:
        """From now on the broker's answers do not come through."""
        self._held.set()

    def release(self) -> None:
        self._held.clear()

    def refuse(self) -> None:
        """Close every new connection at once."""
        self._refusing.set()

    def accept(self) -> None:
        self._refusing.clear()

    def wait_for_connections(self, number: int, timeout: float = 10.0) -> None:
        """Return when *number* connections have been asked for since the start."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.connections >= number, timeout)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._changed:
                self.connections += 1
                self._changed.notify_all()
            if self._refusing.is_set():
                client.close()
                continue
            server = socket.create_connection(self._target)
            for end in (client, server):  # a proxy that waits to fill a packet costs 40 ms a call
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pairs.append((client, server))
            threading.Thread(target=self._pump, args=(client, server, None), daemon=True).start()
            threading.Thread(
                target=self._pump, args=(server, client, self._held), daemon=True
            ).start()

    def _pump(
        self, source: socket.socket, sink: socket.socket, held: threading.Event | None
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if held is None or not held.is_set():
                    sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
                end.close()
