"""Telling over HTTP whether a worker is well, for whoever restarts or routes by that.

``GET /`` answers 200 while the worker is alive, connected and consuming, and 503 otherwise;
``GET /live`` answers 200 while it is alive, be the broker away or not: restarting the worker would
not bring that back. The body is the same JSON for both: the facts, and the counts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from mousetrap.errors import SettingsError
from mousetrap.runtime import threads

FACTS = ("alive", "connected", "consuming")
HOST = "127.0.0.1"
PATIENCE = 5.0  # seconds for a client to say what it wants


class Health:
    """Answers at *place* (``8080``, or ``0.0.0.0:8080`` for other machines) with what *ask* says.

    *ask* returns figures, the three facts among them: as claims, or as how many processes are.

    Threads: *ask* is called on threads of this; everything else from any.
    """

    def __init__(self, place: str, ask: Callable[[], Mapping[str, Any]]) -> None:
        host, port = _parsed(place)

        class Handler(_Handler):
            figures = staticmethod(ask)

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except (OSError, OverflowError) as error:
            raise SettingsError(
                f"cannot tell of health at {host}:{port}: {error}; choose another port with "
                f"--health, or 0 for a free one"
            ) from error
        self._thread = threads.Thread(
            target=self._server.serve_forever, name="mousetrap-health", daemon=True
        )

    @property
    def url(self) -> str:
        """Where it answers."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}/"

    def __enter__(self) -> Health:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server_version, sys_version = "mousetrap", ""
    timeout = PATIENCE
    figures: Callable[[], Mapping[str, Any]]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path not in ("/", "/live"):
            self.send_error(404, "there are / and /live")
            return
        now = dict(self.figures())
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
        """Say nothing: somebody asks every few seconds."""


def _parsed(place: str) -> tuple[str, int]:
    host, _, port = place.rpartition(":")
    try:
        number = int(port)
    except ValueError:
        number = -1
    if not 0 <= number <= 65_535:
        raise SettingsError(
            f"--health is {place[:80]!r}: give a port, like 8080, or an address and a port, like "
            f"0.0.0.0:8080"
        )
    return host.strip("[]") or HOST, number
