"""What we override of pika: fewer system calls, the same bytes; and a cry when pika changes it."""

from __future__ import annotations

import inspect

import pika
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pika import frame, spec
from pika.adapters.utils import io_services_utils

from mousetrap import connection
from mousetrap.message import Message
from mousetrap.publisher import Publisher
from mousetrap.wire import Wire
from mousetrap.worker import Worker


class Recorder(Wire):
    """A connection without a socket: it keeps what goes out and what comes in."""

    def __init__(self):
        self._outgoing, self._frame_buffer, self.bytes_received = [], b"", 0
        self._heads, self._body_max_length, self.frames_sent, self.bytes_sent = {}, 1000, 0, 0
        self.written, self.frames, self.later = [], [], []
        self._transport = self._nbio = self

    def write(self, data):
        self.written.append(data)

    def call_later(self, _, function):
        self.later.append(function)

    def _process_frame(self, value):
        self.frames.append(value)


def frames(count):
    """Deliveries as they come from the broker, and a heartbeat."""
    found = []
    for tag in range(count):
        deliver = spec.Basic.Deliver("me", tag + 1, False, "", "work")
        found += [
            frame.Method(1, deliver).marshal(),
            frame.Header(1, tag, pika.BasicProperties(message_id=str(tag))).marshal(),
            frame.Body(1, b"x" * tag).marshal(),
        ]
    return [*found, frame.Heartbeat().marshal()]


def test_wire_joins_the_frames_of_one_turn():
    """However many frames are emitted in a turn of the loop, one write carries them, in order."""
    wire = Recorder()
    for data in (b"a", b"b", b"c"):
        wire._adapter_emit_data(data)
    assert wire.written == []

    [send] = wire.later
    send()

    assert wire.written == [b"abc"]


def test_wire_forgets_what_cannot_be_sent_any_more():
    """A connection that went away in the same turn has no transport; that is no error."""
    wire = Recorder()
    wire._adapter_emit_data(b"a")
    wire._transport = None

    wire.later[0]()

    assert wire.written == []


class Channel:
    """Number 7, open until it is closed; it keeps what is published the plain way."""

    channel_number, is_open = 7, True

    def __init__(self):
        self.plain = []

    def basic_publish(self, *arguments):
        self.plain.append(arguments)


HEADERS = st.dictionaries(
    st.text(max_size=20),
    st.text(max_size=30) | st.integers(-(2**62), 2**62) | st.booleans() | st.none()
    | st.binary(max_size=9) | st.lists(st.integers(0, 9), max_size=3),
    max_size=4,
)  # fmt: skip
PROPERTIES = st.fixed_dictionaries(
    {},
    optional={
        "content_type": st.text(max_size=20), "headers": HEADERS,
        "delivery_mode": st.sampled_from([1, 2]), "message_id": st.text(max_size=40),
        "priority": st.integers(0, 9), "correlation_id": st.text(max_size=9),
        "reply_to": st.text(max_size=9), "timestamp": st.integers(0, 2**40),
        "app_id": st.text(max_size=9),
    },
)  # fmt: skip
OURS = {
    "content_type": "application/json", "headers": {"mousetrap-attempt": 1, "mousetrap-job": "j"},
    "delivery_mode": 2, "message_id": "0123456789abcdef", "timestamp": 1_790_000_000,
}  # fmt: skip


@given(PROPERTIES, st.binary(max_size=1000), st.text(max_size=9), st.booleans())
@example(OURS, b"{}", "", True)
@example(OURS | {"headers": {"n": 2**40, "x": "\u00e9"}}, b"", "mousetrap.events", False)
def test_wire_publishes_the_bytes_that_pika_would(values, body, exchange, mandatory):
    """Ready-made or not, whatever the properties: the same frames to the last byte."""
    properties, wire = pika.BasicProperties(**values), Recorder()
    method = spec.Basic.Publish(exchange=exchange, routing_key="work", mandatory=mandatory)
    pieces = [frame.Method(7, method), frame.Header(7, len(body), properties)]
    pieces += [frame.Body(7, body)] if body else []
    expected = b"".join(each.marshal() for each in pieces)

    for _ in range(2):  # the second time from what was kept
        wire.publish(Channel(), exchange, "work", body, properties, mandatory)

    assert wire._outgoing == [expected, expected]
    assert (wire.frames_sent, wire.bytes_sent) == (2 * len(pieces), 2 * len(expected))


def test_wire_leaves_to_pika_what_is_large_or_too_late():
    """A body of several frames, a closed channel: pika splits, or raises."""
    wire, channel, properties = Recorder(), Channel(), pika.BasicProperties()
    wire.publish(channel, "", "work", b"x" * 1001, properties, True)
    channel.is_open = False
    wire.publish(channel, "", "work", b"x", properties, True)

    assert [len(body) for _, _, body, *_ in channel.plain] == [1001, 1]
    assert wire._outgoing == []


@pytest.mark.parametrize("size", [1, 7, 8, 50, 10_000])
def test_wire_finds_every_frame_however_the_bytes_are_cut(size):
    """Pieces of any size give the frames that pika's own reading gives."""
    data = b"".join(frames(40))
    wire, plain = Recorder(), Recorder()
    for start in range(0, len(data), size):
        wire._on_data_available(data[start : start + size])
        pika.SelectConnection._on_data_available(plain, data[start : start + size])

    assert len(wire.frames) == len(plain.frames) == 121
    assert [repr(each) for each in wire.frames] == [repr(each) for each in plain.frames]
    assert wire.bytes_received == plain.bytes_received == len(data)
    assert wire._frame_buffer == b""


def test_wire_leaves_the_protocol_header_to_pika():
    """A broker that wants another version answers with a header instead of a frame."""
    wire = Recorder()

    wire._on_data_available(b"AMQP\x00\x00\x09\x01")

    assert [type(each) for each in wire.frames] == [frame.ProtocolHeader]


def test_pika_still_has_what_we_override():
    """Names, signatures and the way they call each other: if this fails, read pika's changes."""
    own = pika.SelectConnection
    assert list(inspect.signature(own._adapter_emit_data).parameters) == ["self", "data"]
    assert list(inspect.signature(own._on_data_available).parameters) == ["self", "data_in"]
    assert list(inspect.signature(own._proto_connection_made).parameters) == ["self", "transport"]
    assert "self._transport.write(data)" in inspect.getsource(own._adapter_emit_data)
    assert "self._adapter_emit_data(" in inspect.getsource(own._output_marshaled_frames)
    reading = inspect.getsource(own._on_data_available)
    assert reading.count("self.") == 5, "pika does something new with what comes in"
    assert "_frame_buffer" in reading
    assert "self._process_frame(frame_value)" in reading
    assert "self.bytes_received +=" in inspect.getsource(own._trim_frame_buffer)
    publishing = inspect.getsource(pika.channel.Channel.basic_publish)
    assert publishing.count("self.") == 2, "pika does something new when it publishes"
    assert "_body_max_length" in inspect.getsource(own._send_message)
    assert isinstance(io_services_utils._AsyncTransportBase._MAX_RECV_BYTES, int)
    assert "_MAX_RECV_BYTES" in inspect.getsource(io_services_utils._AsyncTransportBase._consume)


@pytest.mark.parametrize("way", [Wire, pika.SelectConnection], ids=["joined", "plain"])
def test_both_ways_carry_large_and_many_messages(settings, monkeypatch, way):
    """What goes through our connection goes through pika's own as well."""
    monkeypatch.setattr(connection, "Wire", way)
    sizes = [0, 1, 100, 200_000, 2_000_000] + [50] * 500

    def size(text: str) -> int:
        return len(text)

    with Worker("work", size, settings, writes="out") as worker, Publisher(settings) as publisher:
        publisher.publish_until_confirmed((Message("x" * n) for n in sizes), "work", 30)
        worker.wait_until(done=len(sizes))

    assert worker.statistics().reconnects == 0
