"""What the management plugin says of messages that a work queue has not accepted."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from mousetrap.broker import management
from mousetrap.broker.configuration import free_ports
from mousetrap.settings import Settings


@pytest.fixture
def plugin(monkeypatch):
    """Serve answers by path as the plugin does; return them and the settings that lead there."""
    answers = {}

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            status, body = answers.get(self.path, (404, b"{}"))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        monkeypatch.setattr(management, "PORT_DISTANCE", 0)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield answers, Settings(host="127.0.0.1", port=server.server_port, namespace="n")
        server.shutdown()


def test_lines_name_the_retry_queues_that_hold_messages_back(plugin):
    """A work queue's name leads to its retry queues, in the vhost and the namespace."""
    answers, settings = plugin
    for delay, number in (("5s", 1234), ("1s", 0)):
        body = json.dumps({"messages_dlx": number}).encode()
        answers[f"/api/queues/%2F/n.work.retry.{delay}"] = 200, body

    [line] = management.held_back_lines(["work", "work.dead"], settings)

    assert line.startswith("work.retry.5s: 1,234 messages past the delay, but 'work' is full")


@pytest.mark.parametrize("body", [b"", b"no JSON", b"[]", b'{"messages_dlx": "many"}', b"\xff"])
def test_strange_answers_are_no_figure(plugin, body):
    """What is no figure is left out; the login that is refused likewise."""
    answers, settings = plugin
    answers["/api/queues/%2F/n.work"] = 200, body
    assert management.held_back(["work", "refused"], settings) == {}


def test_without_the_plugin_there_is_no_figure():
    """A port where nothing listens, TLS, a port too high: nothing is raised."""
    [port] = free_ports(1)
    for settings in (
        Settings(host="127.0.0.1", port=port),
        Settings(host="127.0.0.1", port=port, tls=True),
        Settings(host="127.0.0.1", port=65_000),
    ):
        assert management.held_back(["work"], settings) == {}
