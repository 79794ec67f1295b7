"""What people write into the variables works as they mean it, or the error says what to write."""

import os

import pytest

from mousetrap.errors import SettingsError
from mousetrap.settings import Settings

SECRET = "hunter2"
KUBERNETES = {
    "RABBITMQ_PORT": "tcp://10.0.0.1:5672",
    "RABBITMQ_SERVICE_HOST": "10.0.0.1",
    "RABBITMQ_SERVICE_PORT": "5672",
    "RABBITMQ_PORT_5672_TCP": "tcp://10.0.0.1:5672",
    "RABBITMQ_PORT_5672_TCP_ADDR": "10.0.0.1",
}

WORKS = [
    # Kubernetes' variables, beside a Service called rabbitmq
    ({**KUBERNETES, "RABBITMQ_URL": "amqp://me:hunter2@host:5673/v"}, {"port": 5673}),
    ({**KUBERNETES, "RABBITMQ_HOST": "host"}, {"host": "host", "port": 5672}),
    (KUBERNETES, {"host": "localhost", "port": 5672}),
    ({"RABBITMQ_PORT": "tcp://10.0.0.1:5673"}, {"port": 5673}),
    ({"RABBITMQ_PORT": "tcp://[::1]:5673"}, {"port": 5673}),
    # what the URL overrides is not read
    ({"RABBITMQ_URL": "amqp://host", "RABBITMQ_PORT": "many"}, {"port": 5672}),
    ({"RABBITMQ_URL": "amqp://host", "RABBITMQ_HOST": "a:b:c/d"}, {"host": "host"}),
    ({"RABBITMQ_URL": "amqp://host", "RABBITMQ_TLS": "perhaps"}, {"tls": False}),
    ({"RABBITMQ_URL": "amqps://host", "RABBITMQ_TLS": "0"}, {"tls": True, "port": 5671}),
    ({"RABBITMQ_URL": "amqp://me:x@host", "RABBITMQ_PASSWORD": "y"}, {"password": "x"}),
    ({"RABBITMQ_URL": "amqp://me:x@host", "RABBITMQ_PASSWORD_FILE": "/none"}, {"password": "x"}),
    ({"RABBITMQ_URL": "amqp://host/a", "RABBITMQ_VHOST": "b"}, {"vhost": "a"}),
    # and what it lacks is read
    ({"RABBITMQ_URL": "amqp://host", "RABBITMQ_USER": "me"}, {"user": "me"}),
    ({"RABBITMQ_URL": "amqp://me@host", "RABBITMQ_PASSWORD": "y"}, {"password": "y"}),
    ({"RABBITMQ_URL": "amqp://host/", "RABBITMQ_VHOST": "b"}, {"vhost": "b"}),
    # URLs
    ({"RABBITMQ_URL": " amqp://host\n"}, {"host": "host"}),
    ({"RABBITMQ_URL": "AMQP://host"}, {"host": "host"}),
    ({"RABBITMQ_URL": "amqp://host/"}, {"vhost": "/"}),
    ({"RABBITMQ_URL": "amqp://host/%2F"}, {"vhost": "/"}),
    ({"RABBITMQ_URL": "amqp://host/%2f"}, {"vhost": "/"}),
    ({"RABBITMQ_URL": "amqp://host/team"}, {"vhost": "team"}),
    ({"RABBITMQ_URL": "amqp://host/a%2Fb"}, {"vhost": "a/b"}),
    ({"RABBITMQ_URL": "amqp://[::1]:5673"}, {"host": "::1", "port": 5673}),
    ({"RABBITMQ_URL": "amqp://m%40e:a%2Fb%25@host"}, {"user": "m@e", "password": "a/b%"}),
    ({"RABBITMQ_URL": "amqp://me:@host"}, {"password": ""}),
    ({"RABBITMQ_URL": "amqps://host"}, {"tls": True, "port": 5671}),
    ({"RABBITMQ_URL": "amqps://host:443"}, {"tls": True, "port": 443}),
    ({"RABBITMQ_URL": "amqp://host:5671"}, {"tls": False, "port": 5671}),
    ({"RABBITMQ_URL": "amqp://host?heartbeat=20"}, {"heartbeat": 20.0}),
    ({"RABBITMQ_URL": "amqp://me:x@host/v?heartbeat=0"}, {"heartbeat": 0.0, "vhost": "v"}),
    ({"RABBITMQ_URL": ""}, {"host": "localhost"}),
    # parts
    ({"RABBITMQ_HOST": " host \n"}, {"host": "host"}),
    ({"RABBITMQ_HOST": ""}, {"host": "localhost"}),
    ({"RABBITMQ_HOST": "[::1]"}, {"host": "::1"}),
    ({"RABBITMQ_HOST": "::1"}, {"host": "::1"}),
    ({"RABBITMQ_HOST": "  "}, {"host": "localhost"}),
    ({"RABBITMQ_VHOST": "\n"}, {"vhost": "/"}),
    ({"RABBITMQ_URL": "amqp://[fe80::1%25eth0]"}, {"host": "fe80::1%eth0"}),
    ({"RABBITMQ_URL": "amqp://me:100%@host"}, {"password": "100%"}),
    ({"RABBITMQ_PORT": " 5673\n"}, {"port": 5673}),
    ({"RABBITMQ_PORT": ""}, {"port": 5672}),
    ({"RABBITMQ_USER": "me\n"}, {"user": "me"}),
    ({"RABBITMQ_PASSWORD": "a b "}, {"password": "a b "}),
    ({"RABBITMQ_PASSWORD": "hunter2\n"}, {"password": SECRET}),
    ({"RABBITMQ_PASSWORD": "hunter2\r\n"}, {"password": SECRET}),
    ({"RABBITMQ_PASSWORD": "'x'"}, {"password": "'x'"}),
    ({"RABBITMQ_PASSWORD": "100%"}, {"password": "100%"}),
    ({"RABBITMQ_PASSWORD": ""}, {"password": ""}),
    ({"RABBITMQ_VHOST": "/"}, {"vhost": "/"}),
    ({"RABBITMQ_VHOST": "team"}, {"vhost": "team"}),
    ({"RABBITMQ_TLS": "True"}, {"tls": True, "port": 5671}),
    ({"RABBITMQ_TLS": "YES", "RABBITMQ_PORT": "443"}, {"tls": True, "port": 443}),
    ({"RABBITMQ_TLS": "off"}, {"tls": False, "port": 5672}),
    ({"RABBITMQ_TLS": ""}, {"tls": False}),
    ({"MOUSETRAP_NAMESPACE": " team \n"}, {"namespace": "team"}),
    ({"MOUSETRAP_QUEUES_EXPIRE": "TRUE"}, {"queues_expire": True}),
    ({"MOUSETRAP_HEARTBEAT": "5"}, {"heartbeat": 5.0}),
]

REFUSED = [
    # the variables, and a part of the advice
    ({"RABBITMQ_HOST": '"host"'}, "RABBITMQ_HOST", "quotes"),
    ({"RABBITMQ_HOST": "host:5673"}, "RABBITMQ_HOST", "RABBITMQ_PORT"),
    ({"RABBITMQ_HOST": "amqp://me:hunter2@host"}, "RABBITMQ_HOST", "RABBITMQ_URL"),
    ({"RABBITMQ_PORT": "'5672'"}, "RABBITMQ_PORT", "quotes"),
    ({"RABBITMQ_PORT": "amqp://me:hunter2@host"}, "RABBITMQ_PORT", "whole number"),
    ({"RABBITMQ_PORT": "tcp://10.0.0.1"}, "RABBITMQ_PORT", "host:port"),
    ({"RABBITMQ_PORT": "tcp://10.0.0.1:hunter2"}, "RABBITMQ_PORT", "host:port"),
    ({"RABBITMQ_PORT": "5672/tcp"}, "RABBITMQ_PORT", "whole number"),
    ({"RABBITMQ_PORT": "70000"}, "RABBITMQ_PORT", "65535"),
    ({"RABBITMQ_TLS": "perhaps"}, "RABBITMQ_TLS", "1 (yes)"),
    ({"RABBITMQ_PASSWORD_FILE": "/none/there"}, "RABBITMQ_PASSWORD_FILE", "No such file"),
    ({"RABBITMQ_PASSWORD_FILE": "/"}, "RABBITMQ_PASSWORD_FILE", "cannot be read"),
    ({"RABBITMQ_PASSWORD_FILE": os.devnull}, "RABBITMQ_PASSWORD_FILE", "empty"),
    (
        {"RABBITMQ_PASSWORD_FILE": "/x", "RABBITMQ_PASSWORD": SECRET},
        "RABBITMQ_PASSWORD_FILE",
        "one",
    ),
    ({"RABBITMQ_URL": '"amqp://me:hunter2@host"'}, "RABBITMQ_URL", "quotes"),
    ({"RABBITMQ_URL": "amqp://me:hunter2@a:1,b:x"}, "RABBITMQ_URL", "more_hosts has what is no"),
    ({"RABBITMQ_URL": "amqp://me:hunter2%FF@host"}, "RABBITMQ_URL", "amqp://"),
    ({"RABBITMQ_HOST": "[::1]:5672"}, "RABBITMQ_HOST", "RABBITMQ_PORT"),
    ({"RABBITMQ_HOST": "host\x00"}, "RABBITMQ_HOST", "not a name"),
    ({"RABBITMQ_VHOST": "%2Fteam"}, "RABBITMQ_VHOST", "/team"),
    ({"MOUSETRAP_NAMESPACE": "amq"}, "MOUSETRAP_NAMESPACE", "broker's own"),
    ({"MOUSETRAP_NAMESPACE": "amq.team"}, "MOUSETRAP_NAMESPACE", "broker's own"),
    ({"RABBITMQ_URL": "amqp://me:hunter2@host?heartbeat=often"}, "RABBITMQ_URL", "seconds"),
    ({"RABBITMQ_URL": "amqp://host?heartbeat=-1"}, "RABBITMQ_URL", "heartbeat"),
    ({"RABBITMQ_URL": "amqp://me:hunter2@host?frame_max=9"}, "RABBITMQ_URL", "frame_max"),
    ({"RABBITMQ_URL": "amqps://h?cacertfile=x"}, "RABBITMQ_URL", "RABBITMQ_TLS_CA"),
    ({"RABBITMQ_URL": "amqp://h?socket_timeout=1"}, "RABBITMQ_URL", "MOUSETRAP_CONNECT_TIMEOUT"),
    ({"RABBITMQ_URL": "amqp://me:hunt?er2@host"}, "RABBITMQ_URL", "%3F"),
    ({"RABBITMQ_URL": "host:5672"}, "RABBITMQ_URL", "amqp://"),
    ({"RABBITMQ_URL": "http://me:hunter2@host"}, "RABBITMQ_URL", "amqp://"),
    ({"MOUSETRAP_QUEUES_EXPIRE": "2"}, "MOUSETRAP_QUEUES_EXPIRE", "1 (yes)"),
    ({"MOUSETRAP_HEARTBEAT": "60s"}, "MOUSETRAP_HEARTBEAT", "a number"),
]


@pytest.mark.parametrize(("environment", "meant"), WORKS, ids=str)
def test_variables_work_as_they_are_meant(environment, meant):
    """Space, empty texts, Kubernetes' links and the forms of a URL."""
    found = Settings.from_environment(environment)

    assert {name: getattr(found, name) for name in meant} == meant


@pytest.mark.parametrize(("environment", "variable", "advice"), REFUSED, ids=str)
def test_refused_variables_are_named(environment, variable, advice):
    """The error names the variable, says what to write, and shows no password."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment(environment)

    assert variable in str(caught.value)
    assert advice in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("text", ["hunter2", "hunter2\n", "hunter2\r\n"])
def test_password_is_read_from_a_file(tmp_path, text):
    """An editor ends the file with a line break, which is no part of the password."""
    file = tmp_path / "password"
    file.write_bytes(text.encode())

    found = Settings.from_environment({"RABBITMQ_PASSWORD_FILE": f"{file}"})

    assert found.password == SECRET
    assert Settings.from_environment(found.to_environment()) == found


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("MOUSETRAP_NAMESPASE", "MOUSETRAP_NAMESPACE"),
        ("MOUSETRAP_QUEUE_EXPIRE", "MOUSETRAP_QUEUE"),
        ("RABBITMQ_USERNAME", "RABBITMQ_USER"),
        ("RABBITMQ_PASS", "RABBITMQ_PASSWORD"),
        ("RABBITMQ_URL_FILE", "RABBITMQ_URL"),
    ],
)
def test_misspelt_variables_are_warned_of(monkeypatch, written, meant):
    """Once in a process; the value is not shown."""
    monkeypatch.setattr("mousetrap.settings._warned", set())

    with pytest.warns(UserWarning, match=meant) as caught:
        Settings.from_environment({written: SECRET})
    Settings.from_environment({written: SECRET})  # a second warning would be an error here

    assert len(caught) == 1
    assert SECRET not in str(caught[0].message)


def test_tls_that_the_url_overrides_is_warned_of(monkeypatch):
    """The password would go out without TLS, where a person asked for it."""
    monkeypatch.setattr("mousetrap.settings._warned", set())

    with pytest.warns(UserWarning, match="RABBITMQ_TLS is not read: RABBITMQ_URL begins with"):
        Settings.from_environment({"RABBITMQ_URL": "amqp://host", "RABBITMQ_TLS": "1"})
    Settings.from_environment({"RABBITMQ_URL": "amqps://host", "RABBITMQ_TLS": "1"})
