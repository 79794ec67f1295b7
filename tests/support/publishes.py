"""Messages and properties of every kind, for property tests of what is published."""

from __future__ import annotations

from hypothesis import strategies as st

from mousetrap.model.message import Message

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
HEADERS = st.dictionaries(
    st.text(max_size=20),
    st.text(max_size=30) | st.integers(-(2**62), 2**62) | st.booleans() | st.none()
    | st.binary(max_size=9) | st.lists(st.integers(0, 9), max_size=3),
    max_size=4,
)  # fmt: skip
MESSAGES = st.builds(
    Message,
    body=st.binary(max_size=1000),
    id=st.none() | TEXT,
    attempt=st.integers(1, 2000),
    parent=st.none() | TEXT,
    job=st.none() | TEXT,
    past_retries=st.integers(0, 1000),
    headers=st.just({}) | HEADERS,
    correlation_id=st.none() | TEXT,
    content_encoding=st.none() | st.sampled_from(["gzip", "utf-8"]),
)
BASES = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "content_type": st.text(max_size=20), "priority": st.integers(0, 9),
        "correlation_id": st.text(max_size=9), "reply_to": st.text(max_size=9),
        "timestamp": st.integers(0, 2**40), "app_id": st.text(max_size=9),
    },
)  # fmt: skip
PARENT = Message({"n": 1}, id="0123456789abcdef")
