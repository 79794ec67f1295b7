"""What a handling publishes: its outputs, with what they inherit, and where those of joins go."""

from __future__ import annotations

from collections.abc import Sequence

from mousetrap.model.join_headers import JOINS, route
from mousetrap.model.message import Message
from mousetrap.model.targets import SentMessage
from mousetrap.worker.handling import Handling, pass_on


def addressed(
    handling: Handling, carry: Sequence[str], outputs: list[Message], sent: Sequence[SentMessage]
) -> tuple[list[Message], Sequence[SentMessage]]:
    """Return the *outputs* of *handling* for the one queue of its stage, and what it *sent*.

    They have the headers of their message that are passed on, *carry* among them. If they belong to
    joins, all of them are sent messages, with the notices, because each has a target of its own.

    Raises:
        Reject: there are more than a join takes.
    """
    pass_on(handling.message, carry, (*outputs, *[each.message for each in sent]))
    if not handling.targets.joins and JOINS not in handling.message.headers:
        return outputs, sent
    if outputs:
        handling.keep_returned([each.body for each in outputs])
    plain = handling.targets.plain
    everything = [SentMessage(each, plain) for each in outputs] if plain else []
    everything += sent
    routed = route(
        handling.message, handling.name, handling.targets.joins,
        [(each.message, each.target) for each in everything],
    )  # fmt: skip
    kept = [
        each._replace(message=message, target=target)
        for (message, target), each in zip(routed.outputs, everything, strict=True)
    ]
    return [], [*kept, *(SentMessage(*each) for each in routed.notices)]
