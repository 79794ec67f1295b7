"""Random numbers and ids, whose functions a test can replace."""

from __future__ import annotations

import re

from mousetrap.runtime import randomness


def test_new_id_is_32_hexadecimal_digits():
    """Two ids are different."""
    ids = {randomness.new_id() for _ in range(1000)}

    assert len(ids) == 1000
    assert all(re.fullmatch("[0-9a-f]{32}", id) for id in ids)


def test_new_id_uses_the_replaceable_source(monkeypatch):
    """A simulation that replaces `urandom` decides the ids."""
    monkeypatch.setattr(randomness, "urandom", lambda size: bytes(range(size)))

    assert randomness.new_id() == "000102030405060708090a0b0c0d0e0f"


def test_seeded_numbers_can_be_repeated():
    """The same seed gives the same numbers, also a text, also in another process."""
    assert randomness.seeded("7/1").random() == randomness.seeded("7/1").random()
    assert randomness.seeded(7).random() == 0.32383276483316237
