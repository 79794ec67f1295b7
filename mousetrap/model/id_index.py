"""Numbers the messages of a run by their ids, in 25 bytes for each.

A dict of three million ids takes 420 MB. Here an id of 32 hexadecimal digits, like all of ours, is
kept as 16 bytes, and found by a hash table of row numbers; other ids are kept in a dict.
"""

from __future__ import annotations

from array import array

KEY_BYTES = 16
TABLES = 256  # each grows by itself, so that no message waits for more than a few milliseconds
FIRST_SLOTS = 8  # of each table; a power of two
MAX_FILLED = 0.6  # of the slots; beyond, a search takes too many steps


class IdIndex:
    """Row numbers from 0 by id, and back. Nothing is ever removed.

    Threads: one at a time.
    """

    def __init__(self) -> None:
        self._keys = bytearray()
        self._tables = [array("I", bytes(4 * FIRST_SLOTS)) for _ in range(TABLES)]  # row + 1, or 0
        self._filled = [0] * TABLES
        self._rows: dict[str, int] = {}  # of the other ids
        self._ids: dict[int, str] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def find(self, id: str) -> int:
        """Return the row of *id*; -1 if it has none."""
        key = _key(id)
        return self._rows.get(id, -1) if key is None else self.find_key(key)

    def find_key(self, key: bytes) -> int:
        """Return the row of the id whose hexadecimal digits stand for *key*; -1 if it has none."""
        number = hash(key)
        table = self._tables[number & 255]
        mask = len(table) - 1
        at = number >> 8 & mask
        keys = self._keys
        while row := table[at]:
            if keys[row * 16 - 16 : row * 16] == key:
                return row - 1
            at = at + 1 & mask
        return -1

    def add(self, id: str) -> int:
        """Return a new row for *id*, which has none."""
        if (key := _key(id)) is not None:
            return self.add_key(key)
        row = self._rows[id] = self._length
        self._ids[row] = id
        self._keys += bytes(KEY_BYTES)
        self._length += 1
        return row

    def add_key(self, key: bytes) -> int:
        """Return a new row for the id whose hexadecimal digits stand for *key*, which has none."""
        row = self._length
        self._length += 1
        self._keys += key
        number = hash(key)
        which = number & 255
        self._filled[which] += 1
        if self._filled[which] > MAX_FILLED * len(self._tables[which]):
            self._grow(which)
        table = self._tables[which]
        mask = len(table) - 1
        at = number >> 8 & mask
        while table[at]:
            at = at + 1 & mask
        table[at] = row + 1
        return row

    def __getitem__(self, row: int) -> str:
        if self._ids and row in self._ids:
            return self._ids[row]
        return self._keys[row * KEY_BYTES : (row + 1) * KEY_BYTES].hex()

    def _grow(self, which: int) -> None:
        old = self._tables[which]
        new = self._tables[which] = array("I", bytes(8 * len(old)))
        mask = len(new) - 1
        for row in filter(None, old):
            key = bytes(self._keys[(row - 1) * KEY_BYTES : row * KEY_BYTES])
            at = hash(key) >> 8 & mask
            while new[at]:
                at = at + 1 & mask
            new[at] = row


def _key(id: str) -> bytes | None:
    """Return the 16 bytes of *id*; None if it is not what `bytes.hex` returns for 16 bytes."""
    if len(id) != 2 * KEY_BYTES:
        return None
    try:
        key = bytes.fromhex(id)
    except ValueError:
        return None
    return key if key.hex() == id else None
