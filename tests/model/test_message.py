"""Messages: encoding and decoding of bodies, ids and families, properties and headers."""

from __future__ import annotations

import json
import math
import pickle
import uuid
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mousetrap.errors import UndecodableMessage
from mousetrap.fetch_data import Place
from mousetrap.model import message
from mousetrap.model.decoding import decode
from mousetrap.model.encoding import MAX_BODY_BYTES, encode
from mousetrap.model.headers import ATTEMPT, JOB, ORIGIN, PARENT, REASON, RETRIES, TRACEBACK
from mousetrap.model.message import MAX_ATTEMPT, MAX_ID_BYTES, Message, copy_id

numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@dataclass
class Job:
    seed: int
    name: str = "any"


# --- bodies ------------------------------------------------------------------------------------


@given(json_values.filter(lambda data: data is not None))
def test_encode_and_decode_are_inverse(data):
    """Any JSON value arrives as it was sent."""
    assert decode(encode(data)) == data


@given(json_values.filter(lambda data: data is not None))
def test_encode_writes_plain_json(data):
    """A plain pika consumer reads our bodies with json.loads."""
    assert json.loads(encode(data)) == data


@given(json_values)
def test_decode_reads_plain_json(data):
    """A plain pika producer writes bodies with json.dumps."""
    assert decode(json.dumps(data).encode()) == data


@given(st.binary())
def test_decode_returns_data_or_raises_undecodable(body):
    """Any bytes are decoded, or raise the one error that a worker expects."""
    offset: int | None = None
    try:
        decode(body)
    except UndecodableMessage as error:
        offset = error.offset

    assert offset is None or 0 <= offset <= len(body)


def test_encode_turns_none_into_an_empty_body():
    """A message without a body has the data None, and the other way round."""
    assert encode(None) == b""
    assert Message(body=b"").data is None
    assert Message().body == b""


def test_encode_returns_bytes_unchanged():
    """Bytes are taken as an encoded body."""
    assert encode(b"not json") == b"not json"


def test_encode_accepts_dataclasses():
    """A stage may return its own types; decoding validates them."""
    assert decode(encode(Job(7)), Job) == Job(7)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"a": [None, x]}, lambda x: Job(x)])
def test_encode_refuses_what_is_not_finite(bad, wrap):
    """JSON has no such number; null in its place would silently be another value."""
    with pytest.raises(ValueError, match="not finite"):
        encode(wrap(bad))


def test_encode_refuses_what_json_cannot_represent():
    """An object of any other class is not sent as its repr."""
    with pytest.raises(TypeError):
        encode(object())


def test_encode_refuses_text_that_is_not_utf8():
    """A lone surrogate cannot be encoded."""
    with pytest.raises(ValueError, match="surrogates"):
        encode("\ud800")


def test_encode_refuses_what_is_nested_too_deep():
    """A list that contains lists that contain lists ends in a clear error."""
    data = []
    for _ in range(100_000):
        data = [data]

    with pytest.raises(ValueError, match="nested too deep"):
        encode(data)


def test_encode_refuses_a_body_that_is_too_large():
    """The error comes before the broker would close the channel because of the body."""
    with pytest.raises(ValueError, match="store it elsewhere"):
        encode(b"x" * (MAX_BODY_BYTES + 1))


@pytest.mark.parametrize(
    ("body", "reason", "offset"),
    [
        (b"", "not JSON", 0),
        (b"hello", "not JSON", 0),
        (b'{"seed": 1', "not JSON", 10),
        (b"[1, 2] 3", "not JSON", 8),
        (b"NaN", "not JSON", 0),
        (b"[1, -Infinity]", "not JSON", 5),
        (b"{'seed': 1}", "not JSON", 1),
        (b"\x80\x04\x95", "not JSON", 0),
        (b"\xef\xbb\xbf{}", "not JSON", 0),
        (b'["ok", "\xff"]', "not UTF-8", 8),
        (b'{"caf\xe9": 1}', "not UTF-8", 5),
        (b"[" * 10_000 + b"]" * 10_000, "recursion", None),
        (b'{"a":' * 10_000, "recursion", None),
        (b"9" * 5_000, "out of range", None),
        (b"1e999", "out of range", None),
    ],
    ids=lambda value: str(value)[:20],
)
def test_decode_says_what_is_wrong_and_where(body, reason, offset):
    """The error has the reason and the byte, and does not quote the body."""
    with pytest.raises(UndecodableMessage, match=reason) as caught:
        decode(body)

    assert caught.value.offset == offset
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("body", "type", "reason"),
    [
        (b'{"seed": "hunter2"}', Job, "wrong type: Expected `int`, got `str`"),
        (b'{"name": "x"}', Job, "wrong type: Object missing required field `seed`"),
        (b"[]", Job, "wrong type: Expected `object`, got `array`"),
        (b"[[1, 2]]", list[Place], "wrong type: Expected `array` of length 5"),
        (b"[[1, 2, 3, 4, 5]]", list[Place], "wrong type: Expected `str`, got `int`"),
        (b"null", Job, "wrong type"),
    ],
)
def test_decode_says_what_has_the_wrong_type(body, type, reason):
    """JSON of another type is undecodable as well; the error does not quote the value."""
    with pytest.raises(UndecodableMessage, match=reason) as caught:
        decode(body, type)

    assert caught.value.offset is None
    assert "hunter2" not in str(caught.value)


# --- identity ----------------------------------------------------------------------------------


def test_jobs_have_different_ids():
    """Two jobs with the same data are two messages."""
    assert Message({"seed": 1}).id != Message({"seed": 1}).id


def test_children_have_the_same_id_each_time():
    """A job that is handled twice has outputs with the same ids, so a sink can recognise them."""
    job = Message({"seed": 1}, id="a")

    assert job.child(1, "fetch", 0).id == Message(id="a").child(2, "fetch", 0).id


@given(st.lists(st.tuples(st.text(), st.integers(0, 99)), unique=True, max_size=20))
def test_children_have_different_ids(places):
    """Another stage or another index is another message."""
    job = Message(id="a")

    assert len({job.child(None, stage, index).id for stage, index in places}) == len(places)


@given(st.text(), st.text(), st.integers(0, 999))
def test_ids_of_children_are_uuids_of_version_5(parent, stage, index):
    """They are computed faster, but must not change: messages in queues have such ids."""
    expected = uuid.uuid5(uuid.UUID(bytes=message.ID_NAMESPACE), f"{parent}/{stage}/{index}").hex

    assert message.child_id(parent, stage, index) == expected


def test_children_know_their_parent_and_job():
    """They also carry how often their ancestors were retried."""
    job = Message({"seed": 1}, attempt=3)
    child = job.child([1], "fetch", 0)
    grandchild = child.child([2], "process", 0)

    assert (child.parent, child.job, child.attempt) == (job.id, job.id, 1)
    assert (grandchild.parent, grandchild.job) == (child.id, job.id)
    assert (job.retries, child.retries, grandchild.retries) == (2, 2, 2)


def test_a_copy_is_the_same_message():
    """A copy for a retry has the same id, body, parent and job, and the next attempt number."""
    job = Message({"seed": 1}).child([1], "fetch", 0)
    copy = job.copy(2, {REASON: "OSError: down"})

    assert (copy.id, copy.body, copy.parent, copy.job) == (
        job.id,
        job.body,
        job.parent,
        job.job,
    )
    assert (copy.attempt, copy.retries, copy.reason) == (2, 1, "OSError: down")


# --- the wire ----------------------------------------------------------------------------------


def properties(message_id, headers, timestamp=None, correlation_id=None, content_encoding=None):
    """Return what an AMQP client passes with a body, by the standard names."""
    return SimpleNamespace(
        message_id=message_id, headers=headers, timestamp=timestamp, correlation_id=correlation_id,
        content_encoding=content_encoding,
    )  # fmt: skip


@given(json_values, st.integers(1, MAX_ATTEMPT), st.integers(0, MAX_ATTEMPT))
def test_messages_arrive_as_they_were_sent(data, attempt, past):
    """Body, id, attempt, parent, job and the sender's own headers stay the same."""
    parent = Message(id="p", past_retries=past)
    sent = parent.child(data, "fetch", 0).copy(attempt, {"colour": "red"})

    arrived = Message.from_wire(sent.body, properties(sent.id, sent.wire_headers()))

    assert (arrived.data, arrived.id, arrived.attempt) == (sent.data, sent.id, attempt)
    assert (arrived.parent, arrived.job, arrived.past_retries) == ("p", "p", past)
    assert arrived.headers == {"colour": "red"}
    assert arrived.wire_headers() == sent.wire_headers()


def test_messages_of_plain_pika_are_jobs():
    """No id, no headers, no body: a valid job, with an id from us."""
    job = Message.from_wire(b"", properties(None, None))

    assert job.data is None
    assert len(job.id) == 32
    assert (job.attempt, job.parent, job.job, dict(job.headers)) == (1, None, job.id, {})


@pytest.mark.parametrize(
    ("forged", "expected"),
    [
        (None, 1), (0, 1), (-5, 1), (10**9, MAX_ATTEMPT), (2**63, MAX_ATTEMPT), (True, 1),
        (False, 1), ("7", 1), (b"7", 1), (2.5, 1), (math.nan, 1), ([3], 1), ({}, 1), (7, 7),
    ],
)  # fmt: skip
def test_forged_attempts_are_clamped(forged, expected):
    """Another client that writes our header gets neither endless retries nor none."""
    arrived = Message.from_wire(b"1", properties("a", {ATTEMPT: forged, RETRIES: forged}))

    assert arrived.attempt == expected
    assert 0 <= arrived.past_retries <= MAX_ATTEMPT


@pytest.mark.parametrize("forged", [5, b"x", "", None, [], {"a": 1}, math.nan, object()])
def test_headers_of_the_wrong_type_are_ignored(forged):
    """A header of ours that is not a string counts as absent."""
    names = (PARENT, JOB, REASON, TRACEBACK, ORIGIN)
    arrived = Message.from_wire(b"1", properties("a", dict.fromkeys(names, forged)))

    assert (arrived.parent, arrived.job) == (None, "a")
    assert (arrived.reason, arrived.traceback, arrived.origin) == (None, None, None)


def test_absurdly_long_headers_are_cut():
    """An absurdly long header is not passed on."""
    long = dict.fromkeys((JOB, PARENT, REASON), "x" * 10**6)

    message = Message.from_wire(b"1", properties("a", long))

    assert (message.job, message.parent) == ("a", None)  # longer than an id can be
    assert len(message.reason) == 20_000


def test_repr_shows_no_body():
    """A message in a log or a notebook shows facts about it, but not its body."""
    shown = repr(
        Message.from_wire(b'"hunter2"', properties("abcdef0123456789", {REASON: "OSError: down"}))
    )

    assert shown == "<Message abcdef01, attempt 1, 9 bytes, dead: 'OSError: down'>"


def test_undecodable_data_raises_each_time():
    """The error is raised each time, not only the first."""
    bad = Message(body=b"{")

    for _ in range(2):
        with pytest.raises(UndecodableMessage):
            _ = bad.data


def test_current_is_unset_outside_a_worker():
    """Code outside a worker gets a LookupError when it asks for the current message."""
    with pytest.raises(LookupError):
        message.current_message.get()


def test_nothing_is_pickled():
    """A pickle on the wire is refused like any other bytes that are not JSON."""
    with pytest.raises(UndecodableMessage):
        decode(pickle.dumps({"seed": 1}))


def test_message_refuses_what_amqp_cannot_carry():
    """An id of more than 255 bytes and a body of more than 16 MiB raise at once."""
    with pytest.raises(ValueError, match="255"):
        Message(1, id="x" * 256)
    with pytest.raises(ValueError, match="store it elsewhere"):
        Message(body=bytes(16 * 1024 * 1024 + 1))


@given(st.text(max_size=200), st.text(max_size=60))
def test_copies_of_a_message_have_ids_that_fit(id, queue):
    """``ID@QUEUE`` where that is short enough; else an id that is computed from both."""
    copy = copy_id(id, queue)

    assert copy == f"{id}@{queue}" or len(f"{id}@{queue}".encode()) > MAX_ID_BYTES
    assert len(copy.encode()) <= MAX_ID_BYTES


@pytest.mark.parametrize(("job", "of_copy"), [(None, "m@audit"), ("j", "j")])
def test_copy_in_a_queue_keeps_everything_but_its_id(job, of_copy):
    """A message that is a job of its own stays one."""
    message = Message(
        1, id="m", attempt=2, parent="p", job=job, past_retries=3, headers={"h": 1}, sent=9
    )
    copy = message.in_queue("audit")

    assert (copy.id, copy.job, copy.body) == ("m@audit", of_copy, message.body)
    for each in ("attempt", "parent", "past_retries", "headers", "sent"):
        assert getattr(copy, each) == getattr(message, each)
