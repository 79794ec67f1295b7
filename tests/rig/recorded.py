"""What versions of the package have published, on file in ``tests/recorded``."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pika

from mousetrap.model.outcome import Outcome, unpack

FOLDER = Path(__file__).resolve().parents[1] / "recorded"
VERSIONS = sorted(each.stem for each in FOLDER.glob("*.json"))
EVENTS, OUTCOMES = "mousetrap.events", "-"  # the exchange, and the routing key of outcomes


@dataclass(frozen=True)
class Published:
    """One publish of a version: *key* is the queue, if there is no *exchange*."""

    exchange: str
    key: str
    properties: dict[str, Any]
    body: bytes

    @property
    def id(self) -> str:
        return self.properties["message_id"]

    @property
    def headers(self) -> dict[str, Any]:
        return self.properties["headers"]

    @property
    def is_message(self) -> bool:
        """It is a message of a flow; outcomes, queries and answers are not."""
        return not self.exchange and ".who." not in self.key and not self.key.startswith("amq.")

    @property
    def has_outcomes(self) -> bool:
        return (self.exchange, self.key) == (EVENTS, OUTCOMES)

    @property
    def is_query(self) -> bool:
        return self.exchange == EVENTS and self.key != OUTCOMES

    def of_handling(self, id: str, attempt: int, number: int) -> Published:
        """Return this publish with the outcome of that attempt alone, as of handling *number*.

        Each real handling begins at a time of its own, by which the ledger knows it from others.
        """
        batch = json.loads(self.body)
        done = [e for e in batch.get("done", ()) if (e[0], e[3]) == (id, attempt)]
        others = [
            e for e in batch.get("others", ()) if (e["id"], e.get("attempt", 1)) == (id, attempt)
        ]
        for each in done:
            each[1] += number / 1000
        for other in others:
            other["begun"] += number / 1000
        body = json.dumps({**batch, "done": done, "others": others}).encode()
        return replace(self, body=body)

    def pika_properties(self, **changes: Any) -> pika.BasicProperties:
        return pika.BasicProperties(**{**self.properties, **changes})


@cache
def published(version: str) -> list[Published]:
    """Return all that this version published, in the order of the broker."""
    rows = json.loads((FOLDER / f"{version}.json").read_text(encoding="utf-8"))
    return [Published(**{**row, "body": row["body"].encode()}) for row in rows]


def outcomes(version: str) -> list[Outcome]:
    """Return all outcomes that this version published, as the present code understands them."""
    return [o for each in published(version) if each.has_outcomes for o in unpack(each.body)]


def handlings(version: str) -> dict[tuple[str, int], list[Published]]:
    """Return what a worker published for each attempt: by the message's id and the attempt.

    Its outputs, or the copy that is retried or dead; the outcome comes last.
    """
    rows = published(version)
    outputs = defaultdict(list)  # by the id of their parent
    copies = defaultdict(list)  # by id and attempt
    for each in rows:
        if each.is_message and (parent := each.headers.get("mousetrap-parent")):
            outputs[parent].append(each)
        if ".retry." in each.key:
            copies[each.id, each.headers["mousetrap-attempt"] - 1].append(each)
        elif each.key.endswith(".dead"):
            copies[each.id, each.headers["mousetrap-attempt"]].append(each)
    found = {}
    for row in rows:
        if row.has_outcomes:
            for outcome in unpack(row.body):
                attempt = outcome.id, outcome.attempt
                made = outputs[outcome.id] if outcome.kind == "done" else copies[attempt][:1]
                found[attempt] = [*made, row]
    return found
