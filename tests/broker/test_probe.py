"""What a greeting says about the server."""

from __future__ import annotations

import socket

from mousetrap.broker import probe
from mousetrap.broker.configuration import free_ports
from mousetrap.settings import Settings


def test_version_is_none_without_an_amqp_server():
    """A closed port and a server of another protocol have no version."""
    closed = Settings(port=free_ports(1)[0])
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mute = Settings(host="127.0.0.1", port=silent.getsockname()[1])

        assert probe.version(mute, timeout=0.2) is None
    assert probe.version(closed) is None
