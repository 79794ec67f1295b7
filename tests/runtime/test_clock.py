"""The clock, whose functions a test can replace."""

from __future__ import annotations

import re
from datetime import UTC

from mousetrap.runtime import clock


def test_remaining_is_never_negative(monkeypatch):
    """A replaced `monotonic` reaches it; after the deadline nothing is left."""
    monkeypatch.setattr(clock, "monotonic", lambda: 100.0)

    assert clock.remaining(102.5) == 2.5
    assert clock.remaining(99.0) == 0.0


def test_now_is_in_utc(monkeypatch):
    """A replaced `time` reaches it."""
    monkeypatch.setattr(clock, "time", lambda: 0.0)

    assert clock.now().tzinfo is UTC
    assert clock.now().isoformat() == "1970-01-01T00:00:00+00:00"


def test_local_time_is_hours_minutes_and_seconds(monkeypatch):
    """Without an argument it is the current time."""
    monkeypatch.setattr(clock, "time", lambda: 1_000_000.0)

    assert re.fullmatch(r"\d\d:\d\d:\d\d", clock.local_time())
    assert clock.local_time() == clock.local_time(1_000_000.0)


def test_local_date_time_ends_with_the_local_time(monkeypatch):
    """It is the date, and the same time of day."""
    monkeypatch.setattr(clock, "time", lambda: 1_000_000.0)

    date, time = clock.local_date_time().split(" ")
    assert re.fullmatch(r"1970-01-1[123]", date)  # in any time zone
    assert time == clock.local_time()
