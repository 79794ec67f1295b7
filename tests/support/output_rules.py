"""What differs between two runs of a notebook by its nature: a rule for each kind, with its reason.

Rules apply to the text of outputs, plain and HTML. Those of `EVERYWHERE` apply to each cell, those
of `BY_TAG` to the cells that have the rule's name among their tags. The output of a cell with the
tag `VOLATILE` is only compared by its kinds; ``metadata.mousetrap.volatile`` of the cell says why.
Nothing else is masked.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

VOLATILE = "volatile"
# A tag: the cell shows something else without RabbitMQ's management plugin, or without RabbitMQ.
ONLY_RABBITMQ = "only-rabbitmq"


@dataclass(frozen=True)
class Rule:
    """Text that matches *pattern* becomes *becomes*, in a comparison of two outputs.

    With *is_hidden* it is never committed: the committed text has *becomes* in its place.
    """

    name: str
    reason: str
    pattern: str
    becomes: str
    masks: tuple[str, ...]  # texts that it masks, whole
    keeps: tuple[str, ...]  # texts in which it masks nothing
    is_hidden: bool = False

    def apply(self, text: str) -> str:
        """Return *text* with its matches replaced."""
        return re.sub(self.pattern, self.becomes, text)


EVERYWHERE = (
    Rule(
        "cells",
        "a kernel names its cells after its process, in the folder of temporary files",
        r"(?<=File \")[^\"\n]*ipykernel_\d+[/\\]\d+\.py(?=\")"
        r"|(?<=File &quot;)[^&\n]*ipykernel_\d+[/\\]\d+\.py(?=&quot;)",
        "a cell",
        (),
        ('File "/work/my_flow.py"', "ipykernel_1/2.py"),
        is_hidden=True,
    ),
    Rule(
        "temporary folders",
        "tempfile makes a new name each time",
        r"(?:/(?:tmp|var/folders)|[A-Z]:\\)[^\s'\"<>]*?[/\\](?:tmp|mousetrap-)\w+",
        "a temporary folder",
        ("/tmp/tmpo65yafo7", "/var/folders/xy/T/tmpo65yafo7"),
        ("/tmp", "notebooks/_build", "a tmp file"),
        is_hidden=True,
    ),
    Rule(
        "tracebacks",
        "each version of Python marks other parts of a line",
        r"\n *[~^]+ *(?=\n)",
        "",
        (),
        ("a ^ b", "~~~~"),
    ),
    Rule(
        "ids",
        "messages, jobs and runs get new ids, as do the namespaces of a notebook",
        r"(?<![\w.#])(?:[0-9a-f]{32}|[0-9a-f]{8})(?![\w.])|(?<=-)(?:[0-9a-f]{10}-)?[0-9a-f]{8}\b",
        "(id)",
        ("c3bf1f0fbbd5ca2ef6349b106cb3d7b1", "ac0016aa"),
        ("1234567", "#d3453d88", "0.12345678", "deadbeefs", "3 messages"),
    ),
    Rule(
        "namespaces",
        "a test gives a notebook the namespace of its queues; by hand there is none, or another",
        r"\b\w+-(?:[0-9a-f]{10}-)?\(id\)",
        "(namespace)",
        ("bad_day-(id)", "06_bad_d-882665ac1f-(id)"),
        ("bad_day", "a-b-c"),
    ),
    Rule(
        "brokers",
        "the notebooks run on each kind and version of broker",
        r"(?<=using the broker )\w+: .*|\bRabbitMQ \d+\.\d+\.\d+(?: on [\w.]+:\d+)?"
        r"|(?<=\*\*\*\*\*\*\*\*@)[\w.]+:\d+|\b(?:127\.0\.0\.1|localhost):\d+"
        r"|embedded, in memory: mousetrap embedded broker [\d.]+",
        "(broker)",
        ("embedded, in memory: mousetrap embedded broker 0.1.0", "RabbitMQ 3.10.8",
         "RabbitMQ 4.3.6 on localhost:5672", "127.0.0.1:33735"),
        ("RabbitMQ", "RabbitMQ 4", "localhost", "10:30"),
    ),
    Rule(
        "progress",
        "a wait shows its progress only if it takes longer than a second or two",
        r"^(?:\w+-)?\(\w+\)(?:-\(id\))?: \d+ messages? open; done: .*$",
        "",
        (),
        ("namespace: 0 messages open; done: fetch 58", "2 messages open"),
    ),
)  # fmt: skip

BY_TAG = (
    Rule(
        "times",
        "how long something took, and when it was",
        r"\b\d[\d,.]* ?(?:µs|ms|s|min|h)(?: ago)?\b|\b(?:\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d\b",
        "(time)",
        ("403 µs", "3.11 s", "3 s ago", "2026-11-30 23:08:14", "0.59 s", "10.4 ms"),
        ("3 sent", "12", "2 messages", "5 seconds"),
    ),
)
RULES = {rule.name: rule for rule in (*EVERYWHERE, *BY_TAG)}
TAGS = {VOLATILE, ONLY_RABBITMQ, *(rule.name for rule in BY_TAG)}


def normalised(text: str, tags: Collection[str] = ()) -> str:
    """Return *text* without what differs by its nature, in a cell with *tags*."""
    for rule in (*EVERYWHERE, *(rule for rule in BY_TAG if rule.name in tags)):
        text = rule.apply(text)
    return re.sub(r"[ \t]+", " ", text) if "times" in tags else text  # columns follow the widths


def committed(text: str) -> str:
    """Return *text* as it may be committed: without what names a folder of this machine."""
    for rule in EVERYWHERE:
        if rule.is_hidden:
            text = rule.apply(text)
    return text
