"""A link to any server, which can delay the answers, cut connections and refuse new ones."""

from __future__ import annotations

import contextlib
import socket
import threading


class SlowLink:
    """Passes bytes from a port of its own to 127.0.0.1:*port* and back.

    Threads: any.
    """

    def __init__(self, port: int) -> None:
        self.delay = 0.0  # seconds before each part of an answer
        self.is_refusing = False  # a new connection is closed at once
        self._target = port
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> SlowLink:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, name="rig-link", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()
        self.cut()

    def cut(self) -> None:
        """Close all connections."""
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                if self.is_refusing:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [client, server]
                for source, target in ((client, server), (server, client)):
                    threading.Thread(
                        target=self._copy, args=(source, target, source is server), daemon=True
                    ).start()

    def _copy(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        pause = threading.Event()
        with contextlib.suppress(OSError), source, target:
            while data := source.recv(65_536):
                pause.wait(self.delay if is_answer else 0.0)
                target.sendall(data)
