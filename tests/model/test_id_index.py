"""The index of ids: each id has the row that it was added with, whatever it looks like."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mousetrap.model.id_index import FIRST_SLOTS, TABLES, IdIndex
from mousetrap.runtime.randomness import new_id

HEX = st.integers(0, 2**128 - 1).map(lambda number: f"{number:032x}")
LIKE_HEX = st.sampled_from(
    ["A" * 32, "a" * 32, "a" * 31, "aa " * 10 + "aa", "é" * 32, "g" * 32, ""]
)


@given(st.lists(HEX | LIKE_HEX | st.text(max_size=40), unique=True, max_size=50))
def test_ids_are_found_by_row_and_rows_by_id(ids):
    """Also ids that only look like 16 bytes in hexadecimal digits, or are not."""
    index = IdIndex()
    for row, id in enumerate(ids):
        assert index.find(id) == -1
        assert index.add(id) == row

    assert [index.find(id) for id in ids] == list(range(len(ids)))
    assert [index[row] for row in range(len(index))] == ids


def test_ids_are_found_after_the_tables_have_grown():
    """Far more ids than there is room for at first; one that was not added is not found."""
    ids = [new_id() for _ in range(3 * TABLES * FIRST_SLOTS)]
    index = IdIndex()
    for id in ids:
        index.add(id)

    assert all(index.find(id) == row and index[row] == id for row, id in enumerate(ids))
    assert index.find(new_id()) == -1
