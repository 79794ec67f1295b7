"""The protocol: header, login, tuning, channels, and what closes a connection."""

from __future__ import annotations

import pika.frame
import pytest
from client import CHANNEL, CONNECTION, expect_error
from pika import spec

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8

# RabbitMQ waits for 3 s before it closes the socket, which makes guessing passwords slow
SLOW = pytest.mark.long

# ---- greeting and login --------------------------------------------------------------------------

NOT_AMQP = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "AMQP 0-10": b"AMQP\x01\x01\x00\x0a",
    "zeros": b"\0" * 8,
}


@pytest.mark.parametrize("word", NOT_AMQP)
def test_a_wrong_protocol_header(word, connect_raw, target):
    """The broker answers with the header that it supports (RabbitMQ since 4.0: AMQP 1.0)."""
    raw = connect_raw(stage="socket")
    raw.socket.sendall(NOT_AMQP[word])
    got = b""
    while part := raw.socket.recv(100):
        got += part

    is_newer = target.version >= (4, 0) and not target.is_embedded
    assert got == (b"AMQP\3\1\0\0" if is_newer else b"AMQP\0\0\x09\x01")


def test_connection_start(connect_raw):
    """It has version 0-9, server properties, mechanisms and locales."""
    start = connect_raw(stage="start").start

    assert (start.version_major, start.version_minor) == (0, 9)
    assert {b"PLAIN", b"AMQPLAIN"} <= set(bytes(start.mechanisms).split())
    assert b"en_US" in bytes(start.locales)
    assert {"product", "version", "platform", "capabilities"} <= set(start.server_properties)


CAPABILITIES = [
    "publisher_confirms", "exchange_exchange_bindings", "basic.nack", "consumer_cancel_notify",
    "connection.blocked", "consumer_priorities", "authentication_failure_close", "per_consumer_qos",
]  # fmt: skip


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_a_capability(capability, connect_raw):
    """The server properties announce the protocol extensions."""
    assert connect_raw(stage="start").start.server_properties["capabilities"][capability] is True


def test_connection_tune(connect_raw):
    """The broker proposes 2,047 channels, frames of 128 KiB, and a heartbeat of 60 s."""
    tune = connect_raw(stage="tune").tune

    assert (tune.channel_max, tune.frame_max, tune.heartbeat) == (2047, 131_072, 60)


LOGINS = {
    "a wrong password": ("PLAIN", "\0DEV_USER\0wrong"),
    "an unknown user": ("PLAIN", "\0unknown\0CHANGE_ME"),
    "no user": ("PLAIN", "\0\0"),
    "a wrong password by AMQPLAIN": (
        "AMQPLAIN", b"\x05LOGINS\0\0\0\x08DEV_USER\x08PASSWORDS\0\0\0\x05wrong"),
}  # fmt: skip


@pytest.mark.parametrize("word", LOGINS)
def test_a_failed_login(word, connect_raw):
    """A client that supports it gets a connection.close with 403."""
    raw = connect_raw(stage="start")
    raw.log_in(*LOGINS[word])

    closed = raw.expect_close(CONNECTION, 403)
    assert "Login was refused using authentication mechanism" in closed.reply_text


@SLOW
def test_a_failed_login_of_an_old_client(connect_raw):
    """The broker closes the socket without a method."""
    raw = connect_raw(stage="start")
    raw.log_in("PLAIN", "\0DEV_USER\0wrong", authentication_failure_close=False)

    assert raw.next() is None


def test_amqplain(connect_raw):
    """The mechanism AMQPLAIN sends the login as a table."""
    raw = connect_raw(stage="start")
    fields = ((b"\x05LOGIN", raw.user), (b"\x08PASSWORD", raw.password))
    response = b"".join(
        key + b"S" + len(value).to_bytes(4, "big") + value.encode() for key, value in fields
    )
    raw.log_in("AMQPLAIN", response)

    raw.expect(spec.Connection.Tune)


@SLOW
def test_an_unknown_mechanism(connect_raw):
    """The broker closes the socket without a method."""
    raw = connect_raw(stage="start")
    raw.log_in("BANANA", "")

    assert raw.next() is None


def test_an_unknown_virtual_host(connect_raw):
    """It fails with 530."""
    raw = connect_raw(stage="tune")
    raw.send(spec.Connection.TuneOk(2047, 131_072, 0), 0)
    raw.send(spec.Connection.Open("nowhere"), 0)

    assert "nowhere" in raw.expect_close(CONNECTION, 530).reply_text


@pytest.mark.parametrize("agreed", [(2047, 131_072, 0), (10, 8192, 0), (1, 131_072, 30)])
def test_a_valid_tune_ok(agreed, connect_raw):
    """A client can choose channels, frame size and heartbeat up to the proposed values."""
    raw = connect_raw(stage="tune")
    raw.send(spec.Connection.TuneOk(*agreed), 0)
    raw.send(spec.Connection.Open(), 0)

    raw.expect(spec.Connection.OpenOk)


@SLOW
@pytest.mark.parametrize(
    "agreed",
    [(0, 131_072, 0), (2047, 0, 0), (2048, 131_072, 0), (65_535, 131_072, 0), (2047, 131_073, 0),
     (2047, 4095, 0), (2047, 1, 0)],
)  # fmt: skip
def test_an_invalid_tune_ok(agreed, connect_raw):
    """Values above the proposed ones, 0, and tiny frames: the broker closes the socket."""
    raw = connect_raw(stage="tune")
    raw.send(spec.Connection.TuneOk(*agreed), 0)
    raw.send(spec.Connection.Open(), 0)

    assert raw.next() is None


def test_a_heartbeat_is_sent(connect_raw):
    """The broker sends one when it has sent nothing for half of the agreed time."""
    raw = connect_raw(heartbeat=1)
    assert isinstance(raw.next(3), pika.frame.Heartbeat)


def test_a_heartbeat_is_accepted(connect_raw):
    """A client can send one at any time."""
    raw = connect_raw()
    raw.frame(HEARTBEAT, b"", 0)

    assert raw.is_alive()


# ---- channels ------------------------------------------------------------------------------------


def test_closing_a_channel(connect_raw):
    """close-ok comes, and the channel number is free."""
    raw = connect_raw()
    raw.call(spec.Channel.Close(200, "bye", 0, 0), spec.Channel.CloseOk)
    raw.call(spec.Channel.Open(), spec.Channel.OpenOk)

    assert raw.is_alive()


def test_as_many_channels_as_were_agreed(connect_raw):
    """One more than agreed fails with 530; the channel numbers do not matter."""
    raw = connect_raw(channel_max=3)
    for number in (7, 2047):
        raw.call(spec.Channel.Open(), spec.Channel.OpenOk, channel=number)
    raw.send(spec.Channel.Open(), 2)

    raw.expect_close(CONNECTION, 530)


def test_a_channel_that_is_open_already(connect_raw):
    """A second channel.open fails with 504."""
    raw = connect_raw()
    raw.send(spec.Channel.Open(), 1)

    raw.expect_close(CONNECTION, 504)


@pytest.mark.parametrize(
    "method", [spec.Basic.Qos(), spec.Queue.Declare(queue="q"), spec.Channel.Close(200, "", 0, 0)],
    ids=lambda method: method.NAME,
)  # fmt: skip
def test_a_channel_that_is_not_open(method, connect_raw):
    """A method on it fails with 504."""
    raw = connect_raw()
    raw.send(method, 7)

    raw.expect_close(CONNECTION, 504)


def test_an_error_closes_its_own_channel(connect_raw):
    """Other channels go on; the number is free after close-ok."""
    raw = connect_raw()
    raw.call(spec.Channel.Open(), spec.Channel.OpenOk, channel=2)
    raw.send(spec.Queue.Declare(queue="conformance.nowhere", passive=True), 2)
    closed = raw.expect(spec.Channel.Close, channel=2)
    assert (closed.reply_code, closed.class_id, closed.method_id) == (404, 50, 10)

    assert raw.is_alive()
    raw.send(spec.Channel.CloseOk(), 2)
    raw.call(spec.Channel.Open(), spec.Channel.OpenOk, channel=2)


def test_methods_after_an_error_are_ignored(connect_raw, name):
    """The broker ignores them until close-ok: the client sent them before it knew of the error."""
    raw, queue = connect_raw(), name()
    raw.call(spec.Channel.Open(), spec.Channel.OpenOk, channel=2)
    raw.send(spec.Queue.Declare(queue="conformance.nowhere", passive=True), 2)
    raw.send(spec.Queue.Declare(queue=queue, durable=True), 2)
    raw.send(spec.Basic.Publish(routing_key="conformance.nowhere"), 2)
    raw.socket.sendall(pika.frame.Header(2, 0, spec.BasicProperties()).marshal())
    raw.expect(spec.Channel.Close, channel=2)
    raw.send(spec.Channel.CloseOk(), 2)

    raw.send(spec.Queue.Declare(queue=queue, passive=True), 1)
    raw.expect_close(CHANNEL, 404)


def test_both_sides_close_a_channel_at_once(connect_raw):
    """The broker answers the client's close after its own."""
    raw = connect_raw()
    raw.send(spec.Queue.Declare(queue="conformance.nowhere", passive=True))
    raw.send(spec.Channel.Close(200, "", 0, 0))
    raw.expect(spec.Channel.Close)
    raw.expect(spec.Channel.CloseOk)


def test_flow_on(connect_raw):
    """The broker answers channel.flow with active=true."""
    assert connect_raw().call(spec.Channel.Flow(True), spec.Channel.FlowOk).active is True


def test_flow_off(connect_raw):
    """channel.flow with active=false fails with 540; RabbitMQ uses prefetch instead."""
    raw = connect_raw()
    raw.send(spec.Channel.Flow(False))

    raw.expect_close(CONNECTION, 540)


def test_closing_a_connection(connect_raw):
    """close-ok comes."""
    raw = connect_raw()
    raw.call(spec.Connection.Close(200, "bye", 0, 0), spec.Connection.CloseOk, channel=0)


def test_a_connection_that_the_server_closes(connect_raw):
    """The broker closes the socket after close-ok."""
    raw = connect_raw()
    raw.send(spec.Channel.Open(), 1)
    raw.expect_close(CONNECTION, 504)
    raw.send(spec.Connection.CloseOk(), 0)

    assert raw.next() is None


def test_an_error_leaves_other_connections_open(connect_raw):
    """An error closes only its own connection."""
    healthy, broken = connect_raw(), connect_raw()
    broken.frame(77, b"\xff" * 20)
    broken.expect_close(CONNECTION, 501)

    assert healthy.is_alive()


# ---- frames that are none ------------------------------------------------------------------------


def declare_with(arguments):
    """Return a queue.declare whose arguments table has these bytes."""
    return b"\x00\x32\x00\x0a\0\0\0\0" + len(arguments).to_bytes(4, "big") + arguments


FRAMES = {
    "a wrong end": (501, METHOD, b"\x00\x3c\x00\x0a" + bytes(7), 1, b"\x00"),
    "an unknown type": (501, 77, b"", 1, b"\xce"),
    "an unknown method": (540, METHOD, b"\x00\x3c\x03\xe7", 1, b"\xce"),
    "an unknown class": (540, METHOD, b"\x03\xe7\x00\x0a", 1, b"\xce"),
    "a body without a method": (505, BODY, b"hello", 1, b"\xce"),
    "a header without a method": (505, HEADER, b"\x00\x3c" + bytes(12), 1, b"\xce"),
    "a method of channel 0 on channel 1": (
        503, METHOD, b"\x00\x0a\x00\x1f" + bytes(8), 1, b"\xce"),
    "a method that only the server sends": (
        503, METHOD, b"\x00\x32\x00\x0b\x01q" + bytes(8), 1, b"\xce"),
    "a table that is cut short": (502, METHOD, declare_with(b"\x01aS\0\0\0\xff"), 1, b"\xce"),
    "a value of an unknown type": (502, METHOD, declare_with(b"\x01a?\0\0"), 1, b"\xce"),
    "a method that is cut short": (501, METHOD, b"\x00\x3c\x00\x0a\0", 1, b"\xce"),
}  # fmt: skip


@pytest.mark.parametrize("word", FRAMES)
def test_an_invalid_frame(word, connect_raw, target):
    """It closes the connection with its code.

    RabbitMQ closes the socket where it cannot read the frame.
    """
    code, kind, payload, channel, end = FRAMES[word]
    raw = connect_raw()
    raw.frame(kind, payload, channel, end)

    if code in (502, 540) and not target.is_embedded:
        assert raw.next() is None
    else:
        raw.expect_close(CONNECTION, code)


def test_a_frame_that_is_too_large(connect_raw):
    """A frame larger than agreed fails with 501."""
    raw = connect_raw(frame_max=8192)
    raw.send(spec.Basic.Publish(routing_key="k"))
    raw.socket.sendall(pika.frame.Header(1, 9000, spec.BasicProperties()).marshal())
    raw.frame(BODY, bytes(9000))

    raw.expect_close(CONNECTION, 501)


def test_a_frame_of_the_maximum_size(connect_raw, name):
    """The maximum of 8,192 bytes includes the header and the end byte."""
    raw, queue = connect_raw(frame_max=8192), name()
    raw.declare(queue)
    raw.call(spec.Confirm.Select(), spec.Confirm.SelectOk)
    raw.publish(queue, bytes(8192 - 8), size=8192 - 8)

    raw.expect(spec.Basic.Ack)


def test_a_method_in_the_middle_of_a_content(connect_raw):
    """It fails with 505."""
    raw = connect_raw()
    raw.send(spec.Basic.Publish(routing_key="k"))
    raw.send(spec.Basic.Qos())

    raw.expect_close(CONNECTION, 505)


def test_a_body_longer_than_its_header_said(connect_raw, target):
    """The embedded broker fails with 501; RabbitMQ usually waits for an end that never comes."""
    if not target.is_embedded:
        pytest.skip("what RabbitMQ does differs from version to version")
    raw = connect_raw()
    raw.send(spec.Basic.Publish(routing_key="k"))
    raw.socket.sendall(pika.frame.Header(1, 3, spec.BasicProperties()).marshal())
    raw.frame(BODY, b"hello")

    raw.expect_close(CONNECTION, 501)


def test_interleaved_contents_of_two_channels(connect_raw, name):
    """Frames of one channel may come between those of another."""
    raw, queue = connect_raw(), name()
    raw.declare(queue)
    raw.call(spec.Channel.Open(), spec.Channel.OpenOk, channel=2)
    for channel in (1, 2):
        raw.call(spec.Confirm.Select(), spec.Confirm.SelectOk, channel)
        raw.send(spec.Basic.Publish(routing_key=queue), channel)
    for channel in (1, 2):
        header = pika.frame.Header(channel, 4, spec.BasicProperties())
        raw.socket.sendall(header.marshal())
    for channel in (2, 1, 1, 2):
        raw.frame(BODY, b"ab", channel)
    raw.expect(spec.Basic.Ack)
    raw.expect(spec.Basic.Ack)

    answer = raw.call(spec.Queue.Declare(queue=queue, passive=True), spec.Queue.DeclareOk)
    assert answer.message_count == 2


def test_bytes_one_at_a_time(connect_raw):
    """The broker reads frames that come in any number of parts."""
    raw = connect_raw()
    for byte in pika.frame.Method(1, spec.Basic.Qos(prefetch_count=3)).marshal():
        raw.socket.sendall(bytes([byte]))

    raw.expect(spec.Basic.QosOk)


def test_a_content_that_is_never_finished(connect, connect_raw):
    """It does not block other channels."""
    waiting = connect_raw()
    waiting.send(spec.Basic.Publish(routing_key="k"))
    channel = connect().channel()

    with expect_error(404):
        channel.queue_declare("conformance.nowhere", passive=True)


# ---- the last frames -----------------------------------------------------------------------------


def test_nothing_comes_on_a_channel_after_its_close(connect_raw, name):
    """Confirms of what was published before come before channel.close-ok, or not at all."""
    raw, queue = connect_raw(), name()
    raw.declare(queue)
    raw.call(spec.Confirm.Select(), spec.Confirm.SelectOk)
    method = pika.frame.Method(1, spec.Basic.Publish(routing_key=queue)).marshal()
    message = method + pika.frame.Header(1, 0, spec.BasicProperties()).marshal()
    close = pika.frame.Method(1, spec.Channel.Close(200, "", 0, 0)).marshal()
    raw.socket.sendall(message * 20 + close)  # in one write, so that the broker reads all at once

    while not isinstance((frame := raw.next()).method, spec.Channel.CloseOk):
        assert isinstance(frame.method, spec.Basic.Ack)
    raw.send(spec.Channel.Open(), channel=2)
    frame = raw.next()

    assert (frame.channel_number, type(frame.method)) == (2, spec.Channel.OpenOk)


def test_a_client_that_still_writes_reads_the_answer_to_its_close(connect_raw, name):
    """The broker reads on until the client has closed, so no reset takes its last answer."""
    raw, queue = connect_raw(), name()
    raw.declare(queue)
    close = pika.frame.Method(0, spec.Connection.Close(200, "", 0, 0)).marshal()
    raw.socket.sendall(close)
    for _ in range(160):  # more than the buffers of both sockets hold: the broker must read it
        raw.publish(queue, b"x" * 100_000, size=100_000)  # the client has not read the answer

    assert isinstance(raw.next().method, spec.Connection.CloseOk)


DEFAULT_EXCHANGE = {
    "passive declaration": lambda channel, _: channel.exchange_declare("", passive=True),
    "declaration": lambda channel, _: channel.exchange_declare("", "direct", durable=True),
    "deletion": lambda channel, _: channel.exchange_delete(""),
    "binding of a queue": lambda channel, queue: channel.queue_bind(queue, "", "k"),
    "unbinding of a queue": lambda channel, queue: channel.queue_unbind(queue, "", "k"),
    "binding from it": lambda channel, _: channel.exchange_bind("amq.fanout", "", "k"),
    "binding to it": lambda channel, _: channel.exchange_bind("", "amq.fanout", "k"),
    "unbinding from it": lambda channel, _: channel.exchange_unbind("amq.fanout", "", "k"),
}


@pytest.mark.parametrize("operation", DEFAULT_EXCHANGE)
def test_the_default_exchange_can_only_be_published_to(operation, connect, name):
    """Every other operation on it is refused with 403."""
    channel, queue = connect().channel(), name()
    channel.queue_declare(queue, durable=True)

    with expect_error(403):
        DEFAULT_EXCHANGE[operation](channel, queue)
