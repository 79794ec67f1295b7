"""A list of messages: a table without bodies, and the bodies on request."""

from __future__ import annotations

import pytest

from mousetrap.model.headers import REASON
from mousetrap.model.message import Message
from mousetrap.model.message_list import MAX_DECODED_BODY, Messages, preview
from mousetrap.runtime import clock


@pytest.fixture
def messages(monkeypatch):
    """Three messages, sent 12 seconds ago."""
    monkeypatch.setattr(clock, "time", lambda: 1_000_012.0)
    found = [Message(n, id=f"message-{n}", sent=1_000_000) for n in range(3)]
    return Messages(found, " in work", "The messages are back in the queue.")


def test_messages_show_facts_and_no_bodies(messages):
    """Ids, attempts, sizes and ages; the note is below."""
    assert repr(messages) == (
        "3 messages in work, 12 s old\n"
        "message   attempt  size   age\n"
        "message-        1   1 B  12 s\n"
        "message-        1   1 B  12 s\n"
        "message-        1   1 B  12 s\n"
        "The messages are back in the queue."
    )
    assert "<table>" in messages._repr_html_()


def test_the_title_has_the_range_of_the_ages(monkeypatch):
    """From the youngest to the oldest; nothing if no message says when it was sent."""
    monkeypatch.setattr(clock, "time", lambda: 1000.0)
    found = Messages([Message(1, sent=700), Message(1), Message(1, sent=970)])

    assert repr(found).startswith("3 messages, 30 s to 5 min old\n")
    assert repr(Messages([Message(1)])).startswith("1 message\n")


def test_messages_have_a_column_of_reasons_if_one_has_a_reason():
    """Dead letters show why they were dead-lettered."""
    dead = Message(1, headers={REASON: "ValueError: no luck"})

    assert "reason" not in Messages([Message(1)]).table().columns
    assert Messages([dead]).table()[0]["reason"] == "ValueError: no luck"


def test_messages_keep_their_ages(messages, monkeypatch):
    """An age is as of the moment when the list was made, whenever it is shown."""
    monkeypatch.setattr(clock, "time", lambda: 2_000_000.0)

    assert messages.table()[0]["age"] == 12.0


def test_a_slice_of_messages_is_a_list_of_messages(messages):
    """It has the same title and note; one message is itself."""
    part = messages[1:]

    assert isinstance(part, Messages)
    assert ([each.data for each in part], part.title, part.note) == ([1, 2], " in work",
                                                                     messages.note)  # fmt: skip
    assert messages[0].data == 0


def test_bodies_shows_each_body(messages):
    """As text, or decoded to a type."""
    assert [row["body"] for row in messages.bodies()] == ["0", "1", "2"]
    assert [row["body"] for row in messages.bodies(int)] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("body", "type", "expected"),
    [
        (b"caf\xe9", None, "caf\\xe9"),
        (b"[1]", list[int], "[1]"),
        (b"", int, "None"),
        (b'"x"', int, "(wrong type: Expected `int`, got `str`)"),
        (b"1" * (MAX_DECODED_BODY + 1), int, "too large to show: 1,000,001 bytes"),
    ],
    ids=["not UTF-8", "typed", "empty", "wrong type", "too large"],
)
def test_preview_never_raises(body, type, expected):
    """A body that cannot be shown is described instead."""
    assert preview(body, type) == expected
