"""The headers that a copy of a message keeps: which ones, and how many bytes they take.

A message is published again when it is retried, dead-lettered, moved, returned or replayed. Its
copy must not act a second time (``CC``), must not count as something else (``x-death``), and must
fit one frame. Nothing here talks to a broker.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from mousetrap.errors import SettingsError

ATTEMPT, PARENT, JOB = "mousetrap-attempt", "mousetrap-parent", "mousetrap-job"
RETRIES = "mousetrap-retries"
REASON, TRACEBACK, ORIGIN = "mousetrap-reason", "mousetrap-traceback", "mousetrap-origin"
DEAD_SINCE, REPLAYED, DROPPED = "mousetrap-died", "mousetrap-replayed", "mousetrap-dropped"
EDITED = "mousetrap-edited"
LOSSES, TIMEOUTS = "mousetrap-losses", "mousetrap-timeouts"
ROUTED = "mousetrap-routed"
EXPIRES = "mousetrap-expires"  # when, in seconds since 1970 on the sender's clock
DELIVERY_COUNTS = ("x-delivery-count", "x-acquired-count")  # of a quorum queue
FIELD_HEADERS = frozenset((ATTEMPT, PARENT, JOB, RETRIES))  # a `Message` has fields for them

# With these, the broker sends a message to further queues too, or takes it for a duplicate and
# drops it (a plugin). They have done their work when the message arrives here.
ROUTING_HEADERS = frozenset(("CC", "BCC", "x-deduplication-header"))

# W3C Trace Context: https://www.w3.org/TR/trace-context/
TRACE_HEADERS = ("traceparent", "tracestate")  # passed on to the outputs of each stage

# All headers must fit one frame, which has 131,072 bytes unless the broker is set otherwise. Ours,
# with the traceback and the reason, and the properties need less than 20,000.
MAX_FOREIGN_HEADERS = 100_000  # encoded bytes of the headers that a copy keeps
MAX_DROPPED = 1_000  # bytes of the text that says which headers were dropped
MAX_HEADER_NAME = 255  # bytes: AMQP sends it as a short string
MIN_REASON = 200  # bytes of a reason that are kept, however small the frame


class FarTimestamp(int):
    """A timestamp in seconds since 1970 that `datetime` cannot represent: after the year 9999."""


class RawText(bytes):
    """A long string that is not UTF-8; a byte array is plain `bytes`."""


class EncodedValue(bytes):
    """A header value as its bytes on the wire, because it is nested too deep to be decoded."""


def arrived(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return *headers* of a delivery as its `Message` has them: without those in fields of it.

    `ROUTING_HEADERS` are moved into one header of ours, ``mousetrap-routed``. So they remain
    visible and are never published again, by whatever way the message is.
    """
    kept = {key: value for key, value in headers.items() if key not in FIELD_HEADERS}
    if found := {key: kept.pop(key) for key in ROUTING_HEADERS & kept.keys()}:
        before = kept.get(ROUTED)
        kept[ROUTED] = {**before, **found} if isinstance(before, dict) else found
    return kept


def without_delivery_counts(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return *headers* without the counts of a quorum queue."""
    return {key: value for key, value in headers.items() if key not in DELIVERY_COUNTS}


def without_failure_headers(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return *headers* without traces of failures: our reason and counts, the broker's ``x-death``.

    The broker's counts are not needed: they differ by version and queue type, so attempts are
    counted in a header of ours.
    """
    return {key: value for key, value in headers.items() if not _is_of_failures(key)}


def _is_of_failures(key: Any) -> bool:
    ours = (REASON, TRACEBACK, ORIGIN, DEAD_SINCE, LOSSES, TIMEOUTS)
    brokers = ("x-death", "x-first-death-", "x-last-death-", *DELIVERY_COUNTS)
    return key in ours or _name(key).startswith(brokers)


def check_carried(names: Any) -> tuple[str, ...]:
    """Return *names*, headers that a stage passes on to its outputs, as a tuple.

    Raises:
        SettingsError: it is no list of names, or a header cannot be passed on: it is one of ours,
            it routes a message, or it has the broker's counts.
    """
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise SettingsError(f"carry is {names!r}: give a list of header names, as [{names!r}]")
    found = tuple(names)
    for name in found:
        if not isinstance(name, str) or not 0 < len(name.encode()) <= MAX_HEADER_NAME:
            raise SettingsError(
                f"carry has {name!r}: a header's name is a text of 1 to {MAX_HEADER_NAME} bytes"
            )
        if _is_ours(name) or name in (ROUTED, *ROUTING_HEADERS) or _is_of_failures(name):
            raise SettingsError(
                f"carry has {name!r}, which says what happened to one message, or routes it: it "
                f"cannot be passed on to another message; leave it out"
            )
    return found


def carried(headers: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return those *headers* of a message that its outputs get: *names* and `TRACE_HEADERS`."""
    found = {name: headers[name] for name in (*TRACE_HEADERS, *names) if name in headers}
    return kept_headers(found) if found else found


def kept_headers(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headers that a copy of a message with *headers* keeps.

    Headers that AMQP cannot encode are dropped, and ``mousetrap-dropped`` names them. See also
    `fit`: the others keep within `MAX_FOREIGN_HEADERS`.
    """
    kept = without_failure_headers(headers)
    unsent = [name for name, value in kept.items() if entry_size(name, value) is None]
    for name in unsent:
        del kept[name]
    if unsent:
        _note_dropped(kept, "values that AMQP cannot encode", unsent)
    return fit(kept, MAX_FOREIGN_HEADERS)


def fit(headers: dict[str, Any], limit: int) -> dict[str, Any]:
    """Return *headers* with at most *limit* encoded bytes, as far as that is possible.

    Other clients' headers are dropped first, the largest before the others, then our traceback; at
    last the reason is cut. ``mousetrap-dropped``, which comes on top, names what was dropped.
    """
    kept = dict(headers)
    sizes = {name: entry_size(name, value) or 0 for name, value in kept.items()}
    total = sum(sizes.values())
    dropped = []
    others = [name for name in sizes if not _is_ours(name)]
    for name in [*sorted(others, key=sizes.__getitem__, reverse=True), TRACEBACK]:
        if total <= limit:
            break
        if name not in kept:
            continue
        dropped.append(name)
        total -= sizes[name]
        del kept[name]
    if dropped:
        _note_dropped(kept, "values that would not fit one frame", dropped)
    if total > limit and isinstance(reason := kept.get(REASON), str):
        kept[REASON] = cut(reason, max(MIN_REASON, len(reason.encode()) - total + limit))
    return kept


def unsendable(headers: Mapping[str, Any]) -> str:
    """Return the name of the first of *headers* that AMQP cannot encode; "" if there is none."""
    for name, value in headers.items():
        if entry_size(name, value) is None:
            return _name(name)
    return ""


def entry_size(name: Any, value: Any) -> int | None:
    """Return the bytes of one header on the wire; None if AMQP cannot encode it.

    An integer has at most 64 bits with its sign, a decimal 32, and a name 255 bytes of UTF-8.
    """
    try:
        size = len(name if isinstance(name, bytes) else name.encode())
        return None if size > 255 else 1 + size + _size(value)
    except (AttributeError, ArithmeticError, RecursionError, TypeError, ValueError):
        return None


def cut(text: str, limit: int, *, keep_end: bool = False) -> str:
    """Return *text* as valid Unicode of at most *limit* bytes: its beginning, or its end."""
    encoded = text.encode("utf-8", "replace")  # a lone surrogate, of a file name, becomes "?"
    if len(encoded) > limit:
        encoded = encoded[len(encoded) - limit :] if keep_end else encoded[:limit]
    return encoded.decode("utf-8", "ignore")  # a character that was cut in two is left out


def _size(value: Any) -> int:
    match value:
        case str():
            return 5 + len(value.encode())
        case EncodedValue():
            return len(value)
        case bytes():
            return 5 + len(value)
        case None:
            return 1
        case bool():
            return 2
        case int():
            if not isinstance(value, FarTimestamp) and not -(2**63) <= value < 2**63:
                raise ValueError("an integer has at most 64 bits")
            return 9
        case float():
            if not math.isfinite(value):
                raise ValueError("RabbitMQ closes the connection on NaN and infinity (measured)")
            return 9
        case Decimal():
            scaled(value)
            return 6
        case datetime():
            if value.utctimetuple().tm_year < 1970:
                raise ValueError("a timestamp cannot be before 1970")
            return 9
        case dict():
            if None in (sizes := [entry_size(*each) for each in value.items()]):
                raise ValueError("a value in a table cannot be encoded")
            return 5 + sum(size or 0 for size in sizes)
        case list():
            return 5 + sum(map(_size, value))
    raise TypeError(f"AMQP has no {type(value).__name__}")


def scaled(value: Decimal) -> tuple[int, int]:
    """Return the number of decimals of *value*, and *value* times 10 to the power of that.

    Raises:
        ValueError: AMQP cannot encode it: more than 255 decimals, or 32 bits with its sign.
    """
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or exponent > 10 or -exponent > 255:  # or not a number
        raise ValueError("a decimal is finite and has at most 255 decimals")
    number = int("".join(map(str, digits)) or "0") * 10 ** max(0, exponent) * (-1 if sign else 1)
    if not -(2**31) <= number < 2**31:
        raise ValueError("a decimal has at most 32 bits")
    return max(0, -exponent), number


def _note_dropped(headers: dict[str, Any], why: str, names: list[str]) -> None:
    text = f"{why}: {', '.join(sorted(map(_name, names)))}"
    before = headers.get(DROPPED)
    headers[DROPPED] = cut(f"{before}; {text}" if isinstance(before, str) else text, MAX_DROPPED)


def _is_ours(name: Any) -> bool:
    return _name(name).startswith("mousetrap-") and name != ROUTED


def _name(key: Any) -> str:
    """Return a header's name as text: one that is not UTF-8 arrives as bytes."""
    return key.decode(errors="replace") if isinstance(key, bytes) else str(key)
