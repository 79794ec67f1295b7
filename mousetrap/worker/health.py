"""Serves the health of a worker over HTTP, for container engines and load balancers.

``GET /`` answers 200 while the worker is alive, connected and consuming, and 503 otherwise.
``GET /live`` answers 200 while the worker is alive, even if the broker cannot be reached, because a
restart of the worker would not help then. A worker whose handlers all hang beyond their time limit
is not alive. The body is the same JSON for both: facts, counts, and ``oldest``, the seconds since
the oldest message in progress was begun.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from mousetrap.errors import SettingsError
from mousetrap.runtime import threads
from mousetrap.worker.worker_process import FACTS

DEFAULT_HOST = "127.0.0.1"
REQUEST_TIMEOUT = 5.0  # seconds for a client to send its request


class Health:
    """Answers at *address* (``8080``, or ``0.0.0.0:8080`` for other machines).

    *statistics* returns the figures to answer with, among them the three `FACTS`: each is true or
    false, or the number of processes for which it is true.

    Raises:
        SettingsError: *address* is no address, or cannot be served.

    Threads: *statistics* is called on threads of the HTTP server; the methods from any.
    """

    def __init__(self, address: str, statistics: Callable[[], Mapping[str, Any]]) -> None:
        host, port = _parsed(address)

        class BoundHandler(_RequestHandler):
            get_statistics = staticmethod(statistics)

        try:
            self._server = ThreadingHTTPServer((host, port), BoundHandler)
        except (OSError, OverflowError) as error:
            raise SettingsError(
                f"cannot serve health at {host}:{port}: {error}; choose another port with "
                f"--health, or 0 for a free one"
            ) from error
        self._thread = threads.Thread(
            target=self._server.serve_forever, name="mousetrap-health", daemon=True
        )

    @property
    def url(self) -> str:
        """The URL at which it answers."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}/"

    def __enter__(self) -> Health:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _RequestHandler(BaseHTTPRequestHandler):
    server_version, sys_version = "mousetrap", ""
    timeout = REQUEST_TIMEOUT
    get_statistics: Callable[[], Mapping[str, Any]]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path not in ("/", "/live"):
            self.send_error(404, "use / or /live")
            return
        now = dict(self.get_statistics())
        needed = FACTS if path == "/" else FACTS[:1]
        body = json.dumps(now, default=str).encode() + b"\n"
        self.send_response(200 if all(now.get(fact) for fact in needed) else 503)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 -- http.server looks methods up by these names

    def log_message(self, *_: object) -> None:
        """Log nothing: there is a request every few seconds."""


def _parsed(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    try:
        number = int(port)
    except ValueError:
        number = -1
    if not 0 <= number <= 65_535:
        raise SettingsError(
            f"--health is {address[:80]!r}: give a port, like 8080, or an address and a port, like "
            f"0.0.0.0:8080"
        )
    return host.strip("[]") or DEFAULT_HOST, number
