"""Settings: where their values come from, and which values they refuse."""

from __future__ import annotations

import math
import os
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mousetrap.errors import SettingsError
from mousetrap.model.topology import Topology
from mousetrap.settings import Settings

PASSWORD = "hunter/2@:é"
QUOTED = "hunter%2F2%40%3A%C3%A9"


def test_settings_are_the_tutorials_without_an_environment():
    """An empty environment means the development broker of the tutorial."""
    settings = Settings.from_environment({})

    assert settings == Settings()
    assert (settings.host, settings.user, settings.password) == (
        "localhost",
        "DEV_USER",
        "CHANGE_ME",
    )
    assert (settings.port, settings.vhost, settings.tls) == (5672, "/", False)


def test_settings_read_the_tutorials_variables():
    """Code and deployments written for the tutorial keep working."""
    settings = Settings.from_environment(
        {"RABBITMQ_HOST": "rabbit", "RABBITMQ_USER": "me", "RABBITMQ_PASSWORD": "pw"}
    )

    assert (settings.host, settings.user, settings.password) == ("rabbit", "me", "pw")


def test_settings_read_the_environment_when_called(monkeypatch):
    """The environment counts at the call, not at the import."""
    monkeypatch.delenv("RABBITMQ_URL", raising=False)
    monkeypatch.setenv("RABBITMQ_HOST", "later")

    assert Settings.from_environment().host == "later"


def test_settings_prefer_the_url_to_its_parts():
    """RABBITMQ_URL decides what it contains; the other variables decide the rest."""
    settings = Settings.from_environment(
        {
            "RABBITMQ_URL": f"amqps://you:{QUOTED}@far.example/orders%2Feu",
            "RABBITMQ_HOST": "near",
            "RABBITMQ_PASSWORD": "pw",
            "MOUSETRAP_NAMESPACE": "run-1",
        }
    )

    assert (settings.host, settings.port, settings.tls) == ("far.example", 5671, True)
    assert (settings.user, settings.password, settings.vhost) == ("you", PASSWORD, "orders/eu")
    assert settings.namespace == "run-1"


def test_settings_keep_defaults_for_empty_variables():
    """An empty variable, as compose files leave them, means the default."""
    assert Settings.from_environment({"RABBITMQ_HOST": "", "RABBITMQ_PORT": ""}) == Settings()


def test_settings_accept_an_ipv6_address():
    """Brackets belong to the URL, not to the address."""
    settings = Settings.from_environment({"RABBITMQ_URL": "amqp://[::1]:5673"})

    assert (settings.host, settings.port) == ("::1", 5673)
    assert "@[::1]:5673/" in settings.url


@given(
    st.builds(
        Settings,
        host=st.sampled_from(["localhost", "rabbit.example", "::1", "10.0.0.1"]),
        port=st.integers(1, 65_535),
        user=st.text(max_size=20),
        password=st.text(max_size=20),
        vhost=st.text(min_size=1, max_size=20),
        tls=st.booleans(),
        namespace=st.from_regex(r"[A-Za-z0-9_.-]{0,40}", fullmatch=True),
        queue_type=st.sampled_from(["classic", "quorum"]),
        heartbeat=st.floats(0, 3600),
        connect_timeout=st.floats(0.1, 600),
        max_in_flight=st.integers(1, 65_535),
    )
)
def test_settings_are_the_same_in_a_child_process(settings):
    """A child process has the settings of its parent, to the last character of the password."""
    assert Settings.from_environment(settings.to_environment()) == settings


def test_settings_never_show_the_password():
    """Neither repr nor str nor url nor format has it, plain or URL-encoded."""
    settings = Settings(password=PASSWORD)

    for shown in (repr(settings), str(settings), f"{settings}", settings.url):
        assert PASSWORD not in shown
        assert QUOTED not in shown
        assert "hunter" not in shown
    assert settings.url == "amqp://DEV_USER:********@localhost:5672/%2F"


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("RABBITMQ_PORT", "many", "a whole number"),
        ("RABBITMQ_PORT", "0", r"1\.\.65535"),
        ("RABBITMQ_PORT", "65536", r"1\.\.65535"),
        ("MOUSETRAP_HEARTBEAT", "-1", r"0\.\.3600"),
        ("MOUSETRAP_HEARTBEAT", "nan", r"0\.\.3600"),
        ("MOUSETRAP_HEARTBEAT", "soon", "a number"),
        ("MOUSETRAP_CONNECT_TIMEOUT", "0", r"0\.1\.\.600"),
        ("MOUSETRAP_CONFIRM_TIMEOUT", "inf", r"0\.05\.\.3600"),
        ("MOUSETRAP_MAX_IN_FLIGHT", "1.5", "a whole number"),
        ("MOUSETRAP_QUEUE_EXPIRY", "0", r"1\.\."),
        ("MOUSETRAP_QUEUE_TYPE", "lazy", "'classic' or 'quorum'"),
        ("MOUSETRAP_NAMESPACE", "a b", "letters, digits"),
        ("MOUSETRAP_NAMESPACE", "n" * 41, "up to 40"),
    ],
)
def test_settings_refuse_a_bad_variable(variable, value, allowed):
    """The error names the variable, the value and what is allowed."""
    with pytest.raises(SettingsError, match=allowed) as caught:
        Settings.from_environment({variable: value})

    assert variable in str(caught.value)
    assert value[:60] in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "amqp://me:hunter2@host:many/",
        "amqp://me:hunter2@host:0/",
        "amqp://me:hunter2@host:99999/",
        "http://me:hunter2@host/",
        "me:hunter2@host",
        "amqp://me:hunter2@/",
        "amqp://me:hunter2@host/?color=5",
        "amqp://me:hunter#2@host/",
        "amqp://me:12#hunter2@host/",
        "amqp://me:12/hunter2@host/",
        "amqp://me:12?hunter2@host/",
        "amqp://me:hunter2@[host/",
        "amqp://me:hunter2@ho st/",
        "hunter2",
    ],
)
def test_settings_refuse_a_bad_url_without_quoting_it(url):
    """A malformed URL may still contain a password."""
    with pytest.raises(SettingsError, match="RABBITMQ_URL") as caught:
        Settings.from_environment({"RABBITMQ_URL": url})

    assert "hunter" not in "".join(traceback.format_exception_only(caught.value))
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_settings_refuse_a_url_as_host():
    """The error names RABBITMQ_URL and does not quote the URL, which may contain a password."""
    with pytest.raises(SettingsError, match=r"RABBITMQ_HOST: .*RABBITMQ_URL") as caught:
        Settings.from_environment({"RABBITMQ_HOST": "amqp://me:hunter2@host"})

    assert "hunter" not in str(caught.value)


@pytest.mark.parametrize("change", [{"host": ""}, {"port": 0}, {"heartbeat": math.nan}])
def test_settings_are_checked_when_made(change):
    """Neither the constructor nor `replace` makes settings that cannot work."""
    with pytest.raises(SettingsError):
        Settings(**change)
    with pytest.raises(SettingsError):
        Settings().replace(**change)


def test_settings_are_a_value():
    """They cannot be changed in place; `replace` returns new ones."""
    settings = Settings()

    changed = settings.replace(namespace="run-1")

    assert settings.namespace == ""
    assert changed.topology == Topology("run-1", "classic", None)
    assert changed.replace(queues_expire=True).topology.expiry == 86_400.0
    with pytest.raises(AttributeError):
        settings.host = "other"  # type: ignore[misc]


def test_settings_do_not_change_the_environment(monkeypatch):
    """Reading and writing settings changes no variable of this process."""
    before = dict(os.environ)

    Settings.from_environment().to_environment()

    assert dict(os.environ) == before


@pytest.mark.parametrize("name", ["user", "password", "vhost"])
def test_settings_refuse_bytes_that_are_not_utf_8(name):
    """The error for such a variable does not quote it."""
    with pytest.raises(SettingsError, match="UTF-8") as caught:
        Settings(**{name: "\udcffhunter2"})

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".org"])
def test_settings_refuse_an_invalid_host_name(host):
    """A name that DNS cannot represent is refused at once."""
    with pytest.raises(SettingsError, match="not a host name"):
        Settings(host=host)
