"""Each refusal of a broker is provoked; its error says what to do next."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

import mousetrap
from mousetrap.amqp.publisher import Publisher
from mousetrap.amqp.reply_codes import channel_closed, not_allowed
from mousetrap.broker import private
from mousetrap.broker.configuration import free_ports
from mousetrap.broker.probe import version
from mousetrap.errors import (
    AccessRefused,
    BrokerUnreachable,
    ChannelLost,
    ConnectionLost,
    LimitReached,
    QueueMissing,
    TopologyMismatch,
    Unroutable,
)
from mousetrap.job_queue import declare, delete, ping, short_channel
from mousetrap.model.message import Message
from mousetrap.pytest_plugin import missing
from mousetrap.settings import Settings


@pytest.fixture(scope="module")
def tls_node():
    """A private node with a second port for TLS, and a certificate that no authority signed."""
    for program in ("rabbitmq-server", "openssl"):
        if shutil.which(program) is None:
            missing(f"no {program} on the PATH")
    with private(Settings()) as broker:
        node, folder = broker.node, broker.node.folder
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
             "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
             "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
            check=True, capture_output=True,
        )  # fmt: skip
        [node.tls_port] = free_ports(1)
        with (folder / "rabbitmq.conf").open("a") as file:
            file.write(
                f"\nlisteners.ssl.1 = 127.0.0.1:{node.tls_port}\n"
                f"ssl_options.certfile = {folder}/cert.pem\n"
                f"ssl_options.keyfile = {folder}/key.pem\n"
            )
        node.stop()
        node.start()
        yield node


@pytest.mark.local
def test_plain_to_a_tls_port_says_amqps(tls_node):
    """The port speaks TLS, and the client does not."""
    with pytest.raises(BrokerUnreachable, match=r"speaks TLS.* use amqps://"):
        ping(tls_node.settings.replace(port=tls_node.tls_port))


@pytest.mark.local
def test_tls_to_a_plain_port_says_amqp(tls_node):
    """The port does not speak TLS, and the client does."""
    with pytest.raises(BrokerUnreachable, match="does not speak TLS on this port: use amqp://"):
        ping(tls_node.settings.replace(tls=True))


@pytest.mark.local
def test_tls_with_an_unknown_certificate_says_how_to_trust_it(tls_node):
    """What the message advises works."""
    settings = tls_node.settings.replace(tls=True, port=tls_node.tls_port, host="localhost")
    with pytest.raises(BrokerUnreachable, match=r"not trusted .self-signed.*RABBITMQ_TLS_CA"):
        ping(settings)

    assert ping(settings.replace(tls_ca=str(tls_node.folder / "cert.pem"))) > 0


@pytest.mark.local
def test_wrong_address_family_names_the_right_one(tls_node):
    """The broker listens on IPv4 only, and the client connects by IPv6."""
    with pytest.raises(BrokerUnreachable, match=r"set RABBITMQ_HOST=127\.0\.0\.1"):
        ping(tls_node.settings.replace(host="::1"))


@pytest.mark.local
def test_login_vhost_and_permission_are_three_things(tls_node):
    """Each names what to check, or the command that allows it."""
    settings = tls_node.settings
    tls_node.rabbitmqctl("add_user", "stranger", "secret")
    stranger = settings.replace(user="stranger", password="secret")

    with pytest.raises(AccessRefused, match=r"refused the login .* check RABBITMQ_USER"):
        ping(settings.replace(password="nope"))
    with pytest.raises(AccessRefused, match=r"there is no vhost 'my vhost'.*add_vhost 'my vhost'"):
        ping(settings.replace(vhost="my vhost"))
    with pytest.raises(AccessRefused, match=r"'stranger' may not use vhost '/'.*set_permissions"):
        ping(stranger)


@pytest.mark.local
def test_refused_guest_learns_where_it_may_log_in(tls_node):
    """The broker itself gives no reason."""
    with pytest.raises(AccessRefused, match="guest may log in from the broker's own machine"):
        ping(tls_node.settings.replace(user="guest", password="guest"))


def test_other_arguments_are_shown_side_by_side(settings):
    """Ours and the broker's in two columns, with the setting that the argument comes from."""
    name = settings.topology.wire_name("work")
    with short_channel(settings) as channel:
        channel.queue_declare(name, durable=True, arguments={"x-expires": 70_000})
    with pytest.raises(TopologyMismatch) as mismatch:
        declare("work", settings=settings)
    header, row = str(mismatch.value).splitlines()[1:3]

    assert header.split("  ")[1:2] == ["argument"]
    assert [header.index("ours"), header.index("the broker's")] == [
        row.index("60000"), row.index("70000")
    ]  # fmt: skip
    assert "MOUSETRAP_QUEUE_EXPIRY" in str(mismatch.value)


def test_argument_that_no_setting_gives_names_a_way_that_works(settings):
    """No setting declares it: what can be done with such a queue is said, and works."""
    name = settings.topology.wire_name("work")
    ours = settings.topology.work_queue("work").arguments
    with short_channel(settings) as channel:
        channel.queue_declare(name, durable=True, arguments={**ours, "x-max-priority": 5})
    with pytest.raises(TopologyMismatch) as mismatch:
        declare("work", settings=settings)
    text = str(mismatch.value)

    assert "Declare it with" not in text
    assert "Queue('work', arguments={...})" in text  # without the namespace, as in a program
    [named] = re.findall(r"Queue\('([^']*)', declare=False\)", text)
    queue = mousetrap.Queue(named, (), declare=False)
    with mousetrap.Worker(queue, print, settings.replace(queues_expire=False)) as worker:
        mousetrap.send(queue, 1, settings=settings)
        worker.wait_until(done=1, timeout=20)
    assert mousetrap.send("work", 1, settings=settings).error is None
    assert [each.data for each in mousetrap.peek("work", settings=settings)] == [1]
    assert [each.data for each in mousetrap.drain("work", settings=settings)] == [1]
    assert mousetrap.depth("work", settings).messages == 0
    follow(text, settings)
    declare("work", settings=settings)


def follow(text: str, settings: Settings) -> None:
    """Delete what *text* says can be deleted, exactly as it says so."""
    [kind, name] = re.findall(r"\(mousetrap\.open_channel\(\)\.(\w+)_delete\('(.*?)'\)\)", text)[0]
    with mousetrap.open_channel(settings) as channel:
        getattr(channel, f"{kind}_delete")(name)


OTHERS = {  # what another program declared: the kind, with which properties; what the text says
    "queue that is not durable": ("queue", {"durable": False}, "queues with durable true"),
    "queue deleted when unused": (
        "queue", {"durable": True, "auto_delete": True}, "queues with auto_delete false",
    ),
    "exchange that is not durable": (
        "exchange", {"durable": False, "exchange_type": "topic"}, "of their own, with durable true",
    ),
    "exchange that stays": (
        "exchange", {"durable": True, "exchange_type": "topic"}, "declare exchanges of their own",
    ),
    "exchange of another type": (
        "exchange", {"durable": True, "exchange_type": "fanout"}, "Give its `Exchange` the type",
    ),
}  # fmt: skip


@pytest.mark.parametrize("other", OTHERS)
def test_advice_on_a_mismatch_is_about_its_kind(settings, other):
    """A queue's or an exchange's own properties: no word on arguments, and what it says works."""
    kind, properties, expected = OTHERS[other]
    name = settings.topology.wire_name("other")
    with mousetrap.open_channel(settings) as channel:
        getattr(channel, f"{kind}_declare")(name, **properties)
    exchange = mousetrap.Exchange("other")
    queue = "other" if kind == "queue" else mousetrap.Queue("q", bindings=[exchange["a"]])
    with pytest.raises(TopologyMismatch) as mismatch:
        declare(queue, settings=settings)
    text = str(mismatch.value)

    assert expected in text
    assert "queues without" not in text
    follow(text, settings)
    declare(queue, settings=settings)


def test_a_queue_of_another_connection_is_no_reason_for_a_new_channel(settings):
    """Its declaration is refused with 405, and on each new channel again."""
    with mousetrap.open_channel(settings) as channel:
        channel.queue_declare(settings.topology.wire_name("private"), exclusive=True)

        with pytest.raises(
            ChannelLost, match=r"Only the connection that declared it.*another name"
        ):
            declare("private", settings=settings)


def test_a_missing_exchange_is_not_declared_as_a_queue(settings):
    """The text names what declares exchanges."""
    with (
        pytest.raises(QueueMissing, match=r"no exchange 'nowhere'.*exchange_declare of mousetrap"),
        short_channel(settings) as channel,
    ):
        channel.exchange_declare("nowhere", passive=True)


@pytest.mark.parametrize(
    "use",
    [
        lambda settings: mousetrap.peek("log", settings=settings),
        lambda settings: mousetrap.drain("log", 1, settings=settings),
        lambda settings: mousetrap.drain("log", settings=settings),
        lambda settings: mousetrap.purge("log", settings),
        lambda settings: declare("log", settings=settings),
        lambda settings: mousetrap.Worker("log", print, settings).start(),
    ],
    ids=["peek", "drain one", "drain", "purge", "declare", "worker"],
)
def test_stream_is_named_and_what_to_do_with_it(settings, use):
    """The connection is not the problem: the error says what a stream is."""
    if "RabbitMQ" not in (version(settings) or ""):
        pytest.skip("the embedded broker has no streams")
    plain = settings.replace(queues_expire=False)
    with short_channel(plain) as channel:
        name = plain.topology.wire_name("log")
        channel.queue_declare(name, durable=True, arguments={"x-queue-type": "stream"})
    try:
        with pytest.raises(TopologyMismatch, match="is a stream, and a stream keeps its messages"):
            use(plain)
    finally:
        delete("log", settings=plain)


def test_consumer_timeout_says_the_limit_in_force():
    """A 406 for an ack that timed out is no mismatch: it says which limit, and how to raise it.

    RabbitMQ 4.3 gives the limit as -1 if it has cancelled the consumer before.
    """
    words = (
        "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value "
        "used: {} ms. This timeout value can be configured, see consumers doc guide"
    )
    error, unknown = (channel_closed(406, words.format(limit)) for limit in (1_800_000, -1))

    assert type(error) is type(unknown) is ChannelLost
    assert "longer than 1800 s without an ack" in str(error)
    assert "longer than the broker allows without an ack" in str(unknown)
    assert "consumer_timeout in rabbitmq.conf" in str(error)


def test_ack_of_an_unknown_delivery_says_so(settings):
    """It was acked before, or delivered on another channel."""
    declare("work", settings=settings)

    def ack():
        with short_channel(settings) as channel:
            channel.basic_ack(99)
            channel.queue_declare(settings.topology.wire_name("work"), passive=True)

    with pytest.raises(ChannelLost, match="an ack named delivery 99, which does not wait"):
        ack()


def test_unroutable_names_the_queue_that_was_meant(settings):
    """One character is wrong: the most similar queue that was declared here is named."""
    declare("start_fetch", "data_processing", settings=settings)
    with (
        Publisher(settings) as publisher,
        pytest.raises(Unroutable, match=r"Did you mean '.*\.start_fetch'\?"),
    ):
        publisher.publish(Message(1), "start_fecth").wait()


@pytest.mark.parametrize(
    ("words", "ours", "theirs"),
    [
        ("received none but current is the value '5' of type 'signedint'", "none", "5"),
        ("received the value '7' of type 'long' but current is none", "7", "none"),
        ("received 'true' but current is 'false'", "true", "false"),
    ],
)
def test_every_wording_of_a_mismatch_is_read(words, ours, theirs):
    """The texts of RabbitMQ 3.10, 4.0 and 4.3, for queues and exchanges."""
    text = f"PRECONDITION_FAILED - inequivalent arg 'x' for queue 'a' in vhost '/': {words}"
    error = channel_closed(406, text)

    assert isinstance(error, TopologyMismatch)
    assert str(error).splitlines()[2].split() == ["x", ours, theirs]


def test_words_that_are_not_known_are_passed_on_safely():
    """A newer broker may send other texts; their control characters are escaped."""
    error = channel_closed(406, "PRECONDITION_FAILED - something \x1b[31m new")

    assert type(error) is ChannelLost
    assert "something \\x1b[31m new" in str(error)


@pytest.mark.parametrize(
    "reply",
    [
        "NOT_ALLOWED - connection refused for user 'u': user connection limit (1) is reached",
        "NOT_ALLOWED - access to vhost '/' refused for user 'u': connection limit (1) is reached",
        "NOT_ALLOWED - connection refused: node connection limit (1) is reached",
        "NOT_ALLOWED - number of channels opened for user 'u' has reached the maximum allowed user "
        "limit of (2)",
        "NOT_ALLOWED - number of channels opened on node 'rabbit@rabbit' has reached the maximum "
        "allowed limit of 2",
    ],
)
def test_a_limit_is_no_missing_permission(reply):
    """As RabbitMQ 3.10 and 4.3 word it; a limit passes, so another try may succeed."""
    error = not_allowed("u", "/", "amqp://broker", reply)

    assert isinstance(error, LimitReached)
    assert "limit" in str(error)
    assert "set_permissions" not in str(error)


def test_a_vhost_that_is_down_may_come_up_again():
    """A vhost that is missing or forbidden does not, without an operator."""
    down = not_allowed("u", "v", "amqp://broker", "NOT_ALLOWED - vhost 'v' is down")
    missing = not_allowed("u", "v", "amqp://broker", "NOT_ALLOWED - vhost v not found")

    assert type(down) is ConnectionLost
    assert isinstance(missing, AccessRefused)
