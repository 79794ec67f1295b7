"""Was anything lost? The history of each id in, the verdict out; no broker, no clock."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class History:
    """What was seen of each id, by witnesses that do not ask the worker."""

    attempted: set[str] = field(default_factory=set)  # somebody tried to publish it
    confirmed: set[str] = field(default_factory=set)  # the broker took it, and said so
    refused: set[str] = field(default_factory=set)  # the broker did not take it, and said so
    unknown: set[str] = field(default_factory=set)  # nobody said anything
    effects: Counter[str] = field(default_factory=Counter)  # how often it had its result
    dead: dict[str, str] = field(default_factory=dict)  # dead-lettered, with the reason
    left: Counter[str] = field(default_factory=Counter)  # still in its queue at the end
    names: dict[str, set[str]] = field(default_factory=dict)  # the message ids of its results


@dataclass(frozen=True)
class Verdict:
    """What is wrong with a history; `is_clean` if nothing is."""

    lost: set[str]  # confirmed, and nowhere
    unexpected: set[str]  # an effect, a letter or a rest of what nobody sent
    silent: set[str]  # dead without a reason
    left: set[str]  # nobody did it, though there was time
    unaccounted: set[str]  # attempted, and nobody knows which of the three became of it
    renamed: set[str]  # its results had several ids: no sink could tell the duplicates
    duplicates: int  # effects beyond the first; allowed, but counted

    @property
    def is_clean(self) -> bool:
        return not any(getattr(self, name) for name in _WRONGS)

    def __str__(self) -> str:
        facts = {name: len(found) for name in _WRONGS if (found := getattr(self, name))}
        few = {name: sorted(getattr(self, name))[:5] for name in facts}
        return f"{facts or 'clean'}, {self.duplicates} duplicates{f'; {few}' if few else ''}"


_WRONGS = ("lost", "unexpected", "silent", "left", "unaccounted", "renamed")


def check(history: History) -> Verdict:
    """Judge *history*, by the rule of RabbitMQ's own Jepsen suite.

    ``lost = confirmed - effects - dead - left``; unexpected is what was never attempted. Besides,
    as DESIGN promises, a death has a reason, a result has the same id each time, and at the end the
    queues are empty.
    """
    seen = set(history.effects) | set(history.dead) | set(history.left)
    answered = history.confirmed | history.refused | history.unknown
    return Verdict(
        lost=history.confirmed - seen,
        unexpected=(seen | answered) - history.attempted,
        silent={id for id, reason in history.dead.items() if not reason},
        left=set(history.left),
        unaccounted=history.attempted - answered,
        renamed={id for id, names in history.names.items() if len(names) > 1},
        duplicates=sum(count - 1 for count in history.effects.values()),
    )
