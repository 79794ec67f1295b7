"""The ports of a private node."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from mousetrap.broker.configuration import free_ports
from mousetrap.errors import (
    BrokerSetupError,
)


def test_free_ports_are_not_those_of_outgoing_connections():
    """A broker's port stays free while the broker restarts."""
    ports = free_ports(20)

    assert len(set(ports)) == 20
    assert max(ports) < 32_768
    given = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if given.exists():
        assert max(ports) < int(given.read_text().split()[0])


def test_free_ports_fails_when_hardly_one_is_free(monkeypatch):
    """The error has the command that lists the listeners."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        chance = SimpleNamespace(sample=lambda _, tries: [port] * tries)
        monkeypatch.setattr("mousetrap.broker.configuration._RANDOM", chance)
        with pytest.raises(BrokerSetupError, match=r"hardly one is free.*ss -ltn"):
            free_ports(1)
