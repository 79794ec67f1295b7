"""Bodies that another client has compressed: content encodings ``gzip`` and ``deflate``.

The body of a message stays as it arrived, in its retries and its dead letter, too. Only what a
handler reads is decompressed, within a bound. Nothing here talks to a broker.
"""

from __future__ import annotations

import zlib

from mousetrap.display.safe_text import safe
from mousetrap.errors import UndecodableMessage
from mousetrap.model.encoding import MAX_BODY_BYTES

MAX_CONTENT_BYTES = MAX_BODY_BYTES  # of one body when it is decompressed
_GZIP = b"\x1f\x8b"  # no JSON begins so
_GZIP_BITS, _ZLIB_BITS, _RAW_BITS = 31, 15, -15  # forms of a stream, for zlib's `wbits`
# Names of compressions that Python may lack. Other names, such as utf-8, which kombu sends, are of
# no compression: the body is taken as it is.
_UNSUPPORTED = ("br", "bzip2", "compress", "lz4", "lzma", "snappy", "xz", "zstd")


def decompressed(body: bytes, encoding: str) -> bytes:
    """Return *body* without its content *encoding*.

    A body that is not compressed at all, whatever its *encoding* says, is returned as it is.

    Raises:
        UndecodableMessage: it has more than `MAX_CONTENT_BYTES`, its stream is damaged, or its
            *encoding* is not supported.
    """
    name = encoding.strip().lower().removeprefix("x-")
    if name == "gzip":
        return _all_members(body) if body.startswith(_GZIP) else body
    if name == "deflate":
        # it should be zlib's format (RFC 9110, section 8.4.1.2), and often is the bare stream
        for bits in (_ZLIB_BITS, _RAW_BITS):
            try:
                content, rest = _inflated(body, bits, name, MAX_CONTENT_BYTES)
            except zlib.error:
                continue
            if not rest:
                return content
        return body
    if name in _UNSUPPORTED or "," in name:
        raise UndecodableMessage(
            f"the content encoding {safe(encoding, 40)} is not supported: send gzip, deflate or "
            f"none"
        )
    return body


def _all_members(body: bytes) -> bytes:
    """Return the content of all gzip files in *body*, one after the other (RFC 1952, section 2)."""
    contents: list[bytes] = []
    left = MAX_CONTENT_BYTES
    while body:
        try:
            content, body = _inflated(body, _GZIP_BITS, "gzip", left)
        except zlib.error as error:
            reason = str(error).partition(": ")[2] or str(error)
            raise UndecodableMessage(f"damaged gzip: {reason}") from None
        left -= len(content)
        contents.append(content)
    return b"".join(contents)


def _inflated(body: bytes, bits: int, name: str, limit: int) -> tuple[bytes, bytes]:
    """Return the content of the stream at the beginning of *body*, and what follows it."""
    stream = zlib.decompressobj(bits)
    content = stream.decompress(body, limit + 1)
    if len(content) > limit:
        raise UndecodableMessage(
            f"the {name} content has more than {MAX_CONTENT_BYTES:,} bytes: store it elsewhere and "
            f"send its path or URL"
        )
    if not stream.eof:
        raise zlib.error("error: the stream is cut off")
    return content, stream.unused_data
