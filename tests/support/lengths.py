"""Stages of a small flow: the length of a word, and that length as text; no word is an error."""

from __future__ import annotations

from mousetrap import stage


@stage(reads="words", writes="lengths", retry_delays=(0.05,))
def measure(word: str) -> int:
    if not word:
        raise ValueError("no word")
    return len(word)


@stage(reads="lengths", writes="shown")
def show(length: int) -> str:
    return str(length)
