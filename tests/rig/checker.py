"""The ledger checker: takes the history of each message id and returns what is wrong with it.

It needs no broker and no clock.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class History:
    """What was observed of each message id, without asking the worker under test."""

    attempted: set[str] = field(default_factory=set)  # the test tried to publish it
    confirmed: set[str] = field(default_factory=set)  # the broker confirmed it
    refused: set[str] = field(default_factory=set)  # the broker refused or returned it
    unknown: set[str] = field(default_factory=set)  # no answer came
    effects: Counter[str] = field(default_factory=Counter)  # how many results it has
    dead: dict[str, str] = field(default_factory=dict)  # dead-lettered, with the reason
    left: Counter[str] = field(default_factory=Counter)  # still in its queue at the end
    names: dict[str, set[str]] = field(default_factory=dict)  # the message ids of its results


@dataclass(frozen=True)
class Verdict:
    """What is wrong with a history; `is_clean` if nothing is."""

    lost: set[str]  # confirmed, and neither done, dead-lettered nor left
    unexpected: set[str]  # observed, but never attempted
    no_reason: set[str]  # dead-lettered without a reason
    left: set[str]  # not handled, though there was time
    unaccounted: set[str]  # attempted, and neither confirmed, refused nor unknown
    renamed: set[str]  # its results have several ids, so a sink cannot recognise duplicates
    duplicates: int  # results beyond the first of each; allowed, but counted

    @property
    def is_clean(self) -> bool:
        return not any(getattr(self, name) for name in _DEFECTS)

    def __str__(self) -> str:
        counts = {name: len(found) for name in _DEFECTS if (found := getattr(self, name))}
        examples = {name: sorted(getattr(self, name))[:5] for name in counts}
        details = f"; {examples}" if examples else ""
        return f"{counts or 'clean'}, {self.duplicates} duplicates{details}"


_DEFECTS = ("lost", "unexpected", "no_reason", "left", "unaccounted", "renamed")


def check(history: History) -> Verdict:
    """Check *history* by the rule of RabbitMQ's own Jepsen suite.

    ``lost = confirmed - effects - dead - left``; unexpected is what was never attempted. Three
    promises of ours are checked as well: a dead letter has a reason, the results of one message
    always have the same id, and at the end the queues are empty.
    """
    seen = set(history.effects) | set(history.dead) | set(history.left)
    answered = history.confirmed | history.refused | history.unknown
    return Verdict(
        lost=history.confirmed - seen,
        unexpected=(seen | answered) - history.attempted,
        no_reason={id for id, reason in history.dead.items() if not reason},
        left=set(history.left),
        unaccounted=history.attempted - answered,
        renamed={id for id, names in history.names.items() if len(names) > 1},
        duplicates=sum(count - 1 for count in history.effects.values()),
    )
