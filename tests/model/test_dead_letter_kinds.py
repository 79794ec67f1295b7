"""Dead letters by kind of error, as they are shown."""

from __future__ import annotations

from mousetrap import Message
from mousetrap.model.dead_letter_kinds import COLUMNS, kinds_table, shown_kinds
from mousetrap.model.error_kinds import MAX_KINDS

NOW = 1_790_000_000


def letter(id: str, reason: str, ago: int | None, attempt: int = 1) -> Message:
    died = {} if ago is None else {"mousetrap-died": NOW - ago}
    return Message(1, id=id, attempt=attempt, headers={"mousetrap-reason": reason} | died)


LETTERS = [
    letter("first", "KeyError: 'a'", 600, 3),
    letter("second", "KeyError: 'a'", 30, 1),
    letter("third", "KeyError: 'b'", 5, 3),
    letter("fourth", "no time", None),
]


def test_each_kind_has_a_row():
    """The number, the attempts, when the first and the last died, an example."""
    table = kinds_table(LETTERS, NOW, " of words")

    assert [tuple(row.values()) for row in table] == [
        (3, 3, "KeyError: …", "1 to 3", 600.0, 5.0, "first"),
        (1, 1, "no time", 1, None, None, "fourth"),
    ]
    assert tuple(table[0]) == COLUMNS
    text = repr(table)
    assert text.startswith("✕ 4 dead letters of words: 2 kinds of error\n")
    assert "10 min ago  5 s ago  first    KeyError: … (a 2, b 1)\n" in text
    assert "–        –  fourth   no time" in text
    assert 'alt="3 of 4"' in table._repr_html_()


def test_what_is_shown_is_bounded():
    """Further kinds are counted; the table that a program reads has them all."""
    many = [letter(f"m{n}", f"{word}: x", 1) for n, word in enumerate("abcdefghijklmnopqrst")]

    assert len(kinds_table(many, NOW)) == 20
    assert len(shown := shown_kinds(many, NOW, "", "note")) == MAX_KINDS
    assert repr(shown).endswith(f"\nand {20 - MAX_KINDS} further kinds: 12 dead letters. note")


def test_a_narrow_terminal_gets_reasons_in_several_lines():
    """No line is wider than the terminal, and no word is lost."""
    long = "ValueError: " + "long words that do not fit " * 8
    lines = kinds_table([letter("a", long, 1)], NOW).without("share").text(80).splitlines()

    assert max(map(len, lines)) <= 80
    assert " ".join(" ".join(lines[2:]).split()).endswith(long.strip())
