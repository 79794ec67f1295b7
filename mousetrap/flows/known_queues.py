"""Which queues a flow knows with arguments, or as queues that exist already.

A stage that writes ``"jobs"`` by its name must declare it with the arguments with which another
stage reads it. So a worker knows the queues of the flow that it belongs to: those of its run, or of
the other stages in its module or notebook.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from mousetrap.errors import SettingsError
from mousetrap.model.queue_arguments import DEAD_LETTER_EXCHANGE, DEAD_LETTER_KEY
from mousetrap.model.targets import OutputTargets
from mousetrap.model.topology import Queue, unrouted


class ReadsAndWrites(Protocol):
    """What is used here of a `mousetrap.flows.stage.Stage`."""

    name: str
    queue: Queue
    targets: OutputTargets


def known_queues(stages: Iterable[ReadsAndWrites]) -> dict[str, Queue]:
    """Return the queues to which *stages* give arguments or ``declare=False``, by their names.

    If they do not agree, that of the stage that reads it counts (see `check_queues`).
    """
    found = {each.name: each for _, each in _special(stages)}
    return found | {one.queue.name: one.queue for one in stages if _is_special(one.queue)}


def known_beside(stage: Any) -> dict[str, Queue]:
    """Return `known_queues` of *stage* and the others in its module, or in the same notebook."""
    module = sys.modules.get(getattr(stage.function, "__module__", None) or "")
    values = list(vars(module).values()) if module is not None else []
    return known_queues([each for each in values if isinstance(each, type(stage))] + [stage])


def packed(queues: Mapping[str, Queue]) -> str:
    """Return the arguments of *queues* as JSON, for a worker in another process of their run."""
    return json.dumps({name: each.arguments for name, each in queues.items()})


def unpacked(text: str) -> dict[str, Queue]:
    """Return the queues that `packed` made *text* of; only their arguments count in a run."""
    found = json.loads(text).items()
    return {name: Queue(name, declare=False, arguments=each) for name, each in found}


def dead_letter_exchanges(queues: Iterable[Queue]) -> list[str]:
    """Return the names of the exchanges to which RabbitMQ moves dead letters of *queues*."""
    found = [each.arguments.get(DEAD_LETTER_EXCHANGE) for each in queues]
    return list(dict.fromkeys(name for name in found if name))


def dead_letter_queues(queues: Iterable[Queue]) -> list[str]:
    """Return the queues in which such dead letters wait in a run, unless a stage is bound."""
    queues = list(queues)
    given = [each.arguments for each in queues if each.arguments.get(DEAD_LETTER_EXCHANGE) == ""]
    direct = [each[DEAD_LETTER_KEY] for each in given]
    return [*direct, *map(unrouted, dead_letter_exchanges(queues))]


def check_queues(stages: list[Any]) -> None:
    """Raise a `SettingsError` if *stages* name one queue with different arguments."""
    first: dict[str, tuple[str, Queue]] = {}
    for name, each in _special(stages):
        other, known = first.setdefault(each.name, (name, each))
        if not _are_alike(known, each):
            raise SettingsError(_disagreement(each.name, other, name))
    for one in stages:
        if (found := first.get(one.queue.name)) and not _are_alike(found[1], one.queue):
            raise SettingsError(_disagreement(one.queue.name, found[0], one.name))


def _special(stages: Iterable[ReadsAndWrites]) -> Iterator[tuple[str, Queue]]:
    for one in stages:
        for each in (one.queue, *one.targets.named.values()):
            if _is_special(each):
                yield one.name, each


def _is_special(queue: Queue) -> bool:
    return bool(queue.arguments) or not queue.declare


def _are_alike(first: Queue, second: Queue) -> bool:
    return (first.arguments, first.declare) == (second.arguments, second.declare)


def _disagreement(queue: str, first: str, second: str) -> str:
    return (
        f"stages {first} and {second} give queue {queue!r} different arguments, or another "
        f"declare=: make one Queue({queue!r}, ...) and give it to both"
    )
