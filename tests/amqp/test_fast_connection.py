"""What we override of pika: the same bytes with fewer system calls; fails when pika changes."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import pika
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pika import frame, spec
from pika.adapters.utils import io_services_utils
from support.publishes import BASES, MESSAGES, PARENT

from mousetrap.amqp import connection as connection_module
from mousetrap.amqp.fast_connection import FastConnection, _Heartbeats
from mousetrap.amqp.properties import basic_properties
from mousetrap.amqp.publisher import Publisher
from mousetrap.model.message import Message
from mousetrap.worker.worker import Worker


class Receiver(pika.channel.Channel):
    """The part of pika's channel 1 that assembles deliveries, with one consumer."""

    def __init__(self, consumer):
        self.channel_number, self._cancelled, self._consumers = 1, set(), {"me": consumer}
        self._content_assembler = pika.channel.ContentFrameAssembler()


class Recorder(FastConnection):
    """A connection without a socket: it keeps what is sent and received."""

    def __init__(self):
        self._outgoing, self._frame_buffer, self.bytes_received = [], b"", 0
        self._method_frames, self._body_max_length, self.frames_sent, self.bytes_sent = (
            {},
            1000,
            0,
            0,
        )
        self.written, self.others, self.later, self.delivered = [], [], [], []
        self._transport, self._call_soon = self, self.later.append
        self._channels, self.frames_received = {1: Receiver(self.consume)}, 0

    def write(self, data):
        self.written.append(data)

    def consume(self, _, method, properties, body):
        self.delivered.append((vars(method), vars(properties), body))

    def _process_frame(self, value):
        if getattr(value, "channel_number", 0):
            self.frames_received += 1
            self._deliver_frame_to_channel(value)
        else:
            self.others.append(type(value))


def frames(count):
    """The frames of *count* deliveries and of a heartbeat, as the broker sends them."""
    found = []
    for tag in range(count):
        deliver = spec.Basic.Deliver("me", tag + 1, False, "", "work")
        found += [
            frame.Method(1, deliver).marshal(),
            frame.Header(1, tag, pika.BasicProperties(message_id=str(tag))).marshal(),
            *([frame.Body(1, b"x" * tag).marshal()] if tag else []),
        ]
    return [*found, frame.Heartbeat().marshal()]


def test_fast_connection_joins_the_frames_of_one_turn():
    """All frames that are emitted in a turn of the loop are sent by one write, in order."""
    connection = Recorder()
    for data in (b"a", b"b", b"c"):
        connection._adapter_emit_data(data)
    assert connection.written == []

    [send] = connection.later
    send()

    assert connection.written == [b"abc"]


def test_fast_connection_drops_frames_after_the_connection_is_lost():
    """A connection that was lost in the same turn has no transport; that is no error."""
    connection = Recorder()
    connection._adapter_emit_data(b"a")
    connection._transport = None

    connection.later[0]()

    assert connection.written == []


class Socket:
    """A socket that takes *room* bytes and then is full, or is broken; it is its own I/O loop."""

    def __init__(self, room):
        self.room, self.taken, self.watched = room, b"", []

    def send(self, data):
        if self.room is None:
            raise BrokenPipeError
        if not self.room:
            raise BlockingIOError
        data = bytes(data[: self.room])
        self.room -= len(data)
        self.taken += data
        return len(data)

    def fileno(self):
        return 3

    def set_reader(self, *_):
        pass

    def set_writer(self, *_):
        self.watched.append("on")

    def remove_writer(self, *_):
        self.watched.append("off")


@pytest.mark.parametrize(
    ("room", "at_once", "watched"),
    [(100, b"abcd", []), (3, b"abc", ["on"]), (0, b"", ["on"]), (None, b"", ["on"])],
    ids=["room", "nearly full", "full", "broken"],
)
def test_fast_connection_writes_at_once_and_waits_only_if_the_socket_is_full(
    room, at_once, watched
):
    """No wait for a socket that has room. What it did not take follows first, before new frames."""
    connection, socket = Recorder(), Socket(room)
    transport = connection._transport = io_services_utils._AsyncPlaintextTransport(
        socket, connection, socket
    )

    connection._adapter_emit_data(b"abcd")
    connection.later.pop()()
    assert (socket.taken, socket.watched) == (at_once, watched)

    connection._adapter_emit_data(b"ef")
    connection.later.pop()()
    if watched:
        assert socket.taken == at_once, "new frames overtook what was left"
        socket.room = 100
        transport._on_socket_writable()

    assert socket.taken == b"abcdef"
    assert socket.watched == watched + ["off"] * bool(watched)
    assert transport.get_write_buffer_size() == 0


def test_fast_connection_sends_nothing_on_a_transport_that_is_given_up():
    """An aborted transport still has its socket for a turn of the loop."""
    connection, socket = Recorder(), Socket(100)
    transport = io_services_utils._AsyncPlaintextTransport(socket, connection, socket)
    connection._transport = transport
    transport._state = transport._STATE_ABORTED_BY_USER

    connection._adapter_emit_data(b"abcd")
    connection.later.pop()()

    assert socket.taken == b""


class Channel:
    """Number 7, open until it is closed; it keeps what pika would publish."""

    channel_number, is_open = 7, True

    def __init__(self):
        self.plain = []

    def basic_publish(self, *arguments):
        self.plain.append(arguments)


@given(MESSAGES, st.integers(0, 2**40), BASES, st.text(max_size=9), st.booleans())
@example(PARENT, 1_790_000_000, None, "", True)
@example(PARENT.child([1], "fetch", 0), 1_790_000_000, None, "mousetrap.events", False)
def test_fast_connection_publishes_the_bytes_of_pika(message, sent, base, exchange, mandatory):
    """With a cached method frame or without, whatever the properties: the same bytes."""
    values, connection = base and pika.BasicProperties(**base), Recorder()
    properties = basic_properties(message, sent, base and pika.BasicProperties(**base))
    method = spec.Basic.Publish(exchange=exchange, routing_key="work", mandatory=mandatory)
    size = len(message.body)
    pieces = [frame.Method(7, method), frame.Header(7, size, properties)]
    pieces += [frame.Body(7, message.body)] if size else []
    expected = b"".join(each.marshal() for each in pieces)

    for _ in range(2):  # the second time with the cached method frame
        connection.publish(Channel(), exchange, "work", message, sent, values, mandatory)

    assert b"".join(connection._outgoing) == 2 * expected
    assert (connection.frames_sent, connection.bytes_sent) == (2 * len(pieces), 2 * len(expected))


def test_fast_connection_leaves_large_bodies_and_closed_channels_to_pika():
    """pika splits a body of several frames, and raises for a closed channel."""
    connection, channel = Recorder(), Channel()
    connection.publish(channel, "", "work", Message(body=b"x" * 1001), 1, None, True)
    channel.is_open = False
    connection.publish(channel, "", "work", Message(body=b"x"), 1, None, True)

    assert [len(body) for _, _, body, *_ in channel.plain] == [1001, 1]
    assert connection._outgoing == []


@pytest.mark.parametrize("size", [1, 7, 8, 50, 300, 10_000])
def test_fast_connection_finds_every_message_however_the_bytes_are_cut(size):
    """Pieces of any size give the same deliveries as pika's own code, in order."""
    data = b"".join(frames(40))
    connection, plain = Recorder(), Recorder()
    for start in range(0, len(data), size):
        connection._on_data_available(data[start : start + size])
        pika.SelectConnection._on_data_available(plain, data[start : start + size])

    assert len(connection.delivered) == len(plain.delivered) == 40
    assert connection.delivered == plain.delivered
    assert connection.bytes_received == plain.bytes_received == len(data)
    assert connection.frames_received == plain.frames_received == 119
    assert connection.others == plain.others == [frame.Heartbeat]
    assert connection._frame_buffer == b""


def test_fast_connection_leaves_a_body_of_several_frames_to_pika():
    """pika assembles a message larger than a frame; the next message is delivered as usual."""
    deliver = frame.Method(1, spec.Basic.Deliver("me", 1, False, "", "work")).marshal()
    head = frame.Header(1, 4, pika.BasicProperties(message_id="a")).marshal()
    data = deliver + head + frame.Body(1, b"ab").marshal() + frame.Body(1, b"cd").marshal()
    connection = Recorder()

    connection._on_data_available(data + b"".join(frames(3)))

    assert [body for *_, body in connection.delivered] == [b"abcd", b"", b"x", b"xx"]


def test_fast_connection_leaves_the_protocol_header_to_pika():
    """A broker that wants another protocol version sends a header instead of a frame."""
    connection = Recorder()

    connection._on_data_available(b"AMQP\x00\x00\x09\x01")

    assert connection.others == [frame.ProtocolHeader]


@pytest.mark.parametrize(("heartbeat", "looks_after"), [(2, 2.8), (10, 14.0), (60, 65)])
def test_fast_connection_looks_for_silence_within_one_and_a_half_heartbeats(heartbeat, looks_after):
    """The worst case is twice that: less than three heartbeats, however short one is."""
    timers = []
    connection = SimpleNamespace(
        bytes_sent=0, bytes_received=0,
        _adapter_call_later=lambda delay, function: timers.append((function.__name__, delay)),
    )  # fmt: skip

    _Heartbeats(connection, heartbeat)

    assert dict(timers)["_check_heartbeat"] == pytest.approx(looks_after)


def test_pika_still_has_what_we_override():
    """Names, signatures and calls between them: if this fails, read pika's changes."""
    own = pika.SelectConnection
    assert list(inspect.signature(own._adapter_emit_data).parameters) == ["self", "data"]
    assert list(inspect.signature(own._on_data_available).parameters) == ["self", "data_in"]
    assert list(inspect.signature(own._proto_connection_made).parameters) == ["self", "transport"]
    assert "self._transport.write(data)" in inspect.getsource(own._adapter_emit_data)
    assert "self._adapter_emit_data(" in inspect.getsource(own._output_marshaled_frames)
    reading = inspect.getsource(own._on_data_available)
    assert reading.count("self.") == 5, "pika does something new with received data"
    assert "_frame_buffer" in reading
    assert "self._process_frame(frame_value)" in reading
    assert "self.bytes_received +=" in inspect.getsource(own._trim_frame_buffer)
    channel = pika.channel.Channel
    delivery = ["self", "method_frame", "header_frame", "body"]
    assert list(inspect.signature(channel._on_deliver).parameters) == delivery
    assert "self._on_deliver(*response)" in inspect.getsource(channel._handle_content_frame)
    assert "._handle_content_frame(value)" in inspect.getsource(own._deliver_frame_to_channel)
    assert inspect.getsource(own._process_frame).count("self.") == 5, "pika counts something new"
    assert ".HeartbeatChecker(self, self.params.heartbeat)" in inspect.getsource(
        own._create_heartbeat_checker
    )
    checking = inspect.getsource(pika.heartbeat.HeartbeatChecker._start_check_timer)
    assert "self._check_interval, self._check_heartbeat" in checking
    ending = inspect.getsource(own._on_stream_terminated)
    assert list(inspect.signature(own._on_stream_terminated).parameters) == ["self", "error"]
    assert ending.rstrip().endswith("self._init_connection_state()"), "pika does more at the end"
    publishing = inspect.getsource(channel.basic_publish)
    assert publishing.count("self.") == 2, "pika does something new when it publishes"
    assert "_body_max_length" in inspect.getsource(own._send_message)
    assert isinstance(io_services_utils._AsyncTransportBase._MAX_RECV_BYTES, int)
    reading = inspect.getsource(io_services_utils._AsyncTransportBase._consume)
    assert "_MAX_RECV_BYTES" in reading
    assert "bytes_consumed < self._MAX_CONSUME_BYTES" in reading


class Plain(pika.SelectConnection):
    """pika's connection: it sends each frame alone, and is closed instead of dropped."""

    def __init__(self, parameters, _, *, call_soon, on_blocked, **options):  # noqa: ARG002 -- ours
        super().__init__(parameters[0], **options)

    def abort(self):
        pass


@pytest.mark.parametrize("kind", [FastConnection, Plain], ids=["joined", "plain"])
def test_both_connections_carry_large_and_many_messages(settings, monkeypatch, kind):
    """What works with our connection works with pika's own as well."""
    monkeypatch.setattr(connection_module, "FastConnection", kind)
    sizes = [0, 1, 100, 200_000, 2_000_000] + [50] * 500

    def size(text: str) -> int:
        return len(text)

    with Worker("work", size, settings, writes="out") as worker, Publisher(settings) as publisher:
        publisher.publish_until_confirmed((Message("x" * n) for n in sizes), "work", 30)
        worker.wait_until(done=len(sizes))

    assert worker.statistics().reconnects == 0
