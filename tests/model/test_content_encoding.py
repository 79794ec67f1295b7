"""Compressed bodies: they are read within a bound, and stay as they arrived."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from mousetrap.errors import UndecodableMessage
from mousetrap.model.content_encoding import MAX_CONTENT_BYTES, decompressed
from mousetrap.model.message import Message
from mousetrap.worker.handler import Handler


def bare(content):
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(content) + stream.flush()


COMPRESSIONS = {
    "gzip": gzip.compress, "x-gzip": gzip.compress, " GZIP": gzip.compress,
    "deflate": zlib.compress, "Deflate": bare, "identity": bytes, "utf-8": bytes, "": bytes,
}  # fmt: skip
GZIPPED = gzip.compress(b'{"a": 1}')
BOMB = gzip.compress(b"0" * (MAX_CONTENT_BYTES + 1))


@pytest.mark.parametrize("encoding", COMPRESSIONS)
@given(content=st.one_of(st.binary(), st.text().map(lambda text: json.dumps(text).encode())))
def test_content_comes_back(encoding, content):
    """Whatever was compressed; utf-8 is no compression, and some clients send it."""
    assert decompressed(COMPRESSIONS[encoding](content), encoding) == content


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@examples(max_examples=30)
@given(st.recursive(st.none() | st.integers() | st.text(), st.lists))
def test_body_that_is_not_compressed_is_taken_as_it_is(encoding, data):
    """No JSON begins as gzip does, so a false content encoding does no harm."""
    body = json.dumps(data).encode()

    assert decompressed(body, encoding) == body


def test_several_gzip_files_are_one_content():
    """As gzip itself reads them."""
    assert decompressed(gzip.compress(b"[1,") + gzip.compress(b"2]"), "gzip") == b"[1,2]"


@pytest.mark.parametrize(
    ("body", "encoding", "reason"),
    [
        (BOMB, "gzip", "the gzip content has more than 16,777,216 bytes: store it elsewhere"),
        (gzip.compress(b"0" * MAX_CONTENT_BYTES) + GZIPPED, "gzip", "has more than 16,777,216"),
        (zlib.compress(b"0" * (MAX_CONTENT_BYTES + 1)), "deflate", "the deflate content has more"),
        (bare(b"0" * (MAX_CONTENT_BYTES + 1)), "deflate", "the deflate content has more"),
        (GZIPPED[:-1], "gzip", "damaged gzip: the stream is cut off"),
        (GZIPPED[:9] + b"\xff" + GZIPPED[10:-5] + b"\0\0\0\0\0", "gzip", "damaged gzip: incorrect"),
        (GZIPPED + b"\x1f\x8b", "gzip", "damaged gzip: the stream is cut off"),
        (b"\x1f\x8b", "gzip", "damaged gzip"),
        (b"1", "br", "the content encoding br is not supported: send gzip, deflate or none"),
        (b"1", "gzip, gzip", "is not supported"),
    ],
    ids=range(10),
)
def test_content_that_cannot_be_read_has_a_reason(body, encoding, reason):
    """A worker dead-letters the message, with its body as it arrived."""
    message = Message(body=body, content_encoding=encoding)
    with pytest.raises(UndecodableMessage, match=reason):
        Handler(print).arguments(message)

    assert message.readable_body == message.body == body


def test_bomb_takes_no_more_than_the_bound():
    """A body of 16 MiB could be 16 GiB; no more than the bound is ever decompressed."""
    bomb = gzip.compress(bytes(200_000_000), 9)
    tracemalloc.start()
    with pytest.raises(UndecodableMessage, match="more than"):
        decompressed(bomb, "gzip")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 3 * MAX_CONTENT_BYTES


def test_message_keeps_its_body_and_shows_its_content():
    """A copy of it has the same bytes; a copy with another body is not compressed."""
    message = Message(body=GZIPPED, content_encoding="gzip")
    copy = message.copy(2, {})
    edited = message.copy(1, {}, b"[1]")

    assert message.data == copy.data == {"a": 1}
    assert message.content == message.readable_body == b'{"a": 1}'
    assert copy.body == GZIPPED
    assert (edited.data, edited.content_encoding) == ([1], None)
    assert Handler(print).arguments(message) == ({"a": 1},)


def test_empty_content_is_an_empty_body():
    """Its function is called without data."""
    message = Message(body=gzip.compress(b""), content_encoding="gzip")

    assert message.data is None
    assert Handler(lambda *data: data).arguments(message) == ()
