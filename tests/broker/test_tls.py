"""TLS with RabbitMQ: who is trusted, certificates of clients, and what an error names."""

from __future__ import annotations

import shutil
import ssl
import subprocess

import pytest
from rig.brokers import Container, ask_docker
from support.waiting import wait_for

from mousetrap.amqp.publisher import Publisher
from mousetrap.broker import probe
from mousetrap.errors import BrokerUnreachable, MousetrapError, SettingsError
from mousetrap.job_queue import declare, depth, open_channel
from mousetrap.model.message import Message
from mousetrap.settings import Settings
from mousetrap.settings.tls import tls_context
from mousetrap.worker.worker import Worker

CONFIGURATION = """
listeners.tcp = none
listeners.ssl.default = 5672
ssl_options.cacertfile = /etc/rabbitmq/tls/ca.pem
ssl_options.certfile = /etc/rabbitmq/tls/broker.pem
ssl_options.keyfile = /etc/rabbitmq/tls/broker.key
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two authorities; certificates of a broker, a client, and a client of the other authority."""
    if shutil.which("openssl") is None:
        pytest.skip("the program openssl is not installed: it makes the certificates")
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    for authority in ("ca", "other"):
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout",
                f"{authority}.key", "-out", f"{authority}.pem",
                "-subj", f"/CN={authority}")  # fmt: skip
    for name, authority in {"broker": "ca", "client": "ca", "stranger": "other"}.items():
        (folder / "names").write_text("subjectAltName = DNS:localhost")
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", "request",
                "-subj", f"/CN={name}")  # fmt: skip
        openssl("x509", "-req", "-in", "request", "-days", "2", "-CA", f"{authority}.pem", "-CAkey",
                f"{authority}.key", "-CAcreateserial", "-extfile", "names", "-out",
                f"{name}.pem")  # fmt: skip
    (folder / "both.pem").write_text(
        (folder / "client.pem").read_text() + (folder / "client.key").read_text()
    )
    openssl("rsa", "-aes128", "-passout", "pass:x", "-in", "client.key", "-out", "encrypted.key")
    (folder / "text").write_text("no certificate")
    folder.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o644)  # the broker in the container runs as another user
    return folder


@pytest.fixture(scope="module")
def tls_settings(files):
    """Settings of a RabbitMQ that wants a certificate of each client."""
    if shutil.which("docker") is None:
        pytest.skip("needs Docker")
    container = Container(configuration=CONFIGURATION)
    try:
        ask_docker("cp", str(files), f"{container.name}:/etc/rabbitmq/tls")
        container.settings = container.settings.replace(
            host="localhost", tls=True, tls_ca=str(files / "ca.pem"),
            tls_cert=str(files / "client.pem"), tls_key=str(files / "client.key"),
        )  # fmt: skip
        container.start()
        yield container.settings.replace(namespace="tls")
    finally:
        container.close()


def test_client_certificate_is_shown_and_the_broker_verified(tls_settings):
    """By the connections of workers and publishers, blocking channels, and the probe."""
    assert "RabbitMQ" in probe.version(tls_settings)
    declare("work", "out", settings=tls_settings)
    with Publisher(tls_settings) as publisher, Worker("work", len, tls_settings, writes="out"):
        publisher.publish_until_confirmed([Message("word")], "work")
        wait_for(lambda: depth("out", tls_settings).messages == 1)


def test_certificate_and_key_may_be_in_one_file(tls_settings, files):
    """As some tools write them."""
    with open_channel(
        tls_settings.replace(tls_cert=str(files / "both.pem"), tls_key="")
    ) as channel:
        assert channel.is_open


WRONG = {
    "no certificate": ({"tls_cert": "", "tls_key": ""}, "RABBITMQ_TLS_CERT"),
    "of another authority": (
        {"tls_cert": "stranger.pem", "tls_key": "stranger.key"}, "does not accept the certificate",
    ),
    "broker not trusted": ({"tls_ca": ""}, "RABBITMQ_TLS_CA"),
    "another host name": ({"host": "127.0.0.1"}, "host name in the certificate"),
    "no TLS": ({"tls": False}, "amqps://"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("how", ["publisher", "channel"])
def test_what_is_wrong_is_named(tls_settings, files, wrong, how):
    """And the variable with which to mend it."""
    changes, expected = WRONG[wrong]
    changes = {
        name: str(files / value) if name.startswith("tls_") and value else value
        for name, value in changes.items()
    }
    settings = tls_settings.replace(**changes)

    with pytest.raises(MousetrapError, match=expected) as raised:
        Publisher(settings).open() if how == "publisher" else open_channel(settings)
    assert isinstance(raised.value, BrokerUnreachable)


def test_renewed_files_are_read_at_the_next_connection(tls_settings, files, tmp_path):
    """A file that cannot be used at this moment delays the connection and does not end it."""
    certificate, key = tmp_path / "mine.pem", tmp_path / "mine.key"
    shutil.copy(files / "client.pem", certificate)
    shutil.copy(files / "client.key", key)
    settings = tls_settings.replace(tls_cert=str(certificate), tls_key=str(key))
    with Publisher(settings) as publisher:
        connection = publisher.connection
        certificate.write_text("half of a ")
        connection.call(lambda: connection.reconnect(BrokerUnreachable("cut")))
        wait_for(lambda: "RABBITMQ_TLS_CERT" in str(connection.error))
        shutil.copy(files / "client.pem", certificate)
        wait_for(lambda: connection.is_open)


BAD_FILES = {
    "missing": ({"tls_ca": "nowhere"}, "RABBITMQ_TLS_CA .* cannot be read"),
    "no PEM": ({"tls_ca": "text"}, "RABBITMQ_TLS_CA .* no certificate in PEM format"),
    "certificate missing": ({"tls_cert": "nowhere"}, "RABBITMQ_TLS_CERT .* cannot be read"),
    "key missing": ({"tls_cert": "client.pem", "tls_key": "nowhere"}, "RABBITMQ_TLS_KEY"),
    "no key": ({"tls_cert": "client.pem"}, "set RABBITMQ_TLS_KEY"),
    "another key": ({"tls_cert": "client.pem", "tls_key": "broker.key"}, "does not belong"),
    "encrypted key": ({"tls_cert": "client.pem", "tls_key": "encrypted.key"}, "is encrypted"),
    "key is text": ({"tls_cert": "client.pem", "tls_key": "text"}, "PEM format"),
}


@pytest.mark.parametrize("bad", BAD_FILES)
def test_bad_file_is_refused_before_anything_is_sent(files, bad):
    """The variable is named."""
    changes, expected = BAD_FILES[bad]
    settings = Settings(tls=True, **{name: str(files / each) for name, each in changes.items()})

    with pytest.raises(SettingsError, match=expected):
        tls_context(settings)
    with pytest.raises(SettingsError, match=expected):
        Publisher(settings).open()
    with pytest.raises(SettingsError, match=expected):
        open_channel(settings)


def test_system_authorities_are_trusted_by_default():
    """And names and certificates verified."""
    context = tls_context(Settings(tls=True))

    assert context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED


def test_password_that_changes_is_read_again(rabbit, rabbit_settings, tmp_path):
    """A worker that loses its connection logs in with what is in the file now."""
    file = tmp_path / "password"
    file.write_text("first\n")
    rabbit.rabbitmqctl("add_user", "rotating", "first")
    rabbit.rabbitmqctl("set_permissions", "rotating", ".*", ".*", ".*")
    try:
        given = rabbit_settings.to_environment() | {
            "RABBITMQ_URL": f"amqp://rotating@127.0.0.1:{rabbit_settings.port}",
            "RABBITMQ_PASSWORD_FILE": str(file),
        }
        settings = Settings.from_environment(given)
        assert "first" not in str(settings.to_environment())
        with Publisher(settings) as publisher:
            connection = publisher.connection
            rabbit.rabbitmqctl("change_password", "rotating", "second")
            file.write_text("second\n")
            connection.call(lambda: connection.reconnect(BrokerUnreachable("cut")))
            wait_for(lambda: connection.reconnects == 1 and connection.is_open)
        with open_channel(settings) as channel:
            assert channel.is_open
    finally:
        rabbit.rabbitmqctl("delete_user", "rotating")
