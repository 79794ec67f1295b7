"""Health over HTTP, without a worker: which status and body a request gets."""

from __future__ import annotations

import http.client
import json
from urllib.parse import urlsplit

import pytest

from mousetrap.worker.health import Health

WELL = {"alive": True, "connected": True, "consuming": True, "done": 3}


def request(health, path="/", method="GET"):
    """Return the status, the content type and the body of one answer."""
    connection = http.client.HTTPConnection(urlsplit(health.url).netloc, timeout=10)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.headers["Content-Type"], response.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("change", "ready", "live"),
    [({}, 200, 200), ({"consuming": False}, 503, 200), ({"connected": False}, 503, 200),
     ({"alive": False}, 503, 503), ({"alive": 2, "connected": 1, "consuming": 0}, 503, 200)],
)  # fmt: skip
def test_status_follows_from_the_facts(change, ready, live):
    """``/`` needs all three facts, ``/live`` the first only; each may be a number of processes."""
    with Health("0", lambda: WELL | change) as health:
        assert request(health)[0] == ready
        assert request(health, "/?verbose")[0] == ready
        assert request(health, "/live")[0] == live


def test_body_is_the_statistics_as_json():
    """The same for both paths and both statuses; values that JSON lacks are text."""
    figures = WELL | {"consuming": False, "state": ValueError("x")}
    with Health("0", lambda: figures) as health:
        answers = [request(health, path) for path in ("/", "/live")]

    for _, kind, body in answers:
        assert kind == "application/json"
        assert json.loads(body) == figures | {"state": "x"}


def test_figures_are_those_of_the_moment():
    """The function is called for each request."""
    figures = iter([WELL, WELL | {"done": 4}])
    with Health("0", lambda: next(figures)) as health:
        assert [json.loads(request(health)[2])["done"] for _ in range(2)] == [3, 4]


def test_head_has_no_body():
    """HEAD is answered like GET, without the figures."""
    with Health("0", lambda: WELL) as health:
        assert request(health, method="HEAD") == (200, "application/json", b"")


def test_other_paths_are_not_found():
    """The answer names the two paths."""
    with Health("0", lambda: WELL) as health:
        status, _, body = request(health, "/metrics")

    assert status == 404
    assert b"use / or /live" in body


@pytest.mark.parametrize(("address", "host"), [("0", "127.0.0.1"), ("localhost:0", "127.0.0.1")])
def test_address_is_a_port_or_a_host_and_a_port(address, host):
    """Without a host only this machine is answered; port 0 is a free one."""
    with Health(address, dict) as health:
        assert urlsplit(health.url).hostname == host
        assert urlsplit(health.url).port
