"""The stages of the rig that split, handle and join: a message ``[id, n]`` becomes n parts.

Part i is dropped, doubled, or fails at the first attempt, as `what_comes_of` says. The joined
output is ``[id, parts]``; the stage `keep` stores it in the sink that ``RIG_SINK`` names.
"""

from __future__ import annotations

from collections.abc import Iterator

import mousetrap
from mousetrap.model.message import current_message

from .work_stage import DELAYS, kill_at, sink

Part = tuple[str, int]


@mousetrap.stage(reads="work", writes="pieces", retry_delays=DELAYS)
def split(job: tuple[str, int]) -> Iterator[Part]:
    kill_at("handler begins")
    id, n = job
    yield from ((id, i) for i in range(n))


@mousetrap.stage(reads="pieces", writes="parts", retry_delays=DELAYS)
def handle(part: Part) -> Iterator[Part]:
    kill_at("handler begins")
    id, i = part
    if i % 11 == 4 and current_message.get().attempt == 1:
        raise ValueError("no luck")
    yield from ((id, i) for i in what_comes_of(i))


@mousetrap.stage(reads="parts", joins="split", writes="out", retry_delays=DELAYS)
def join(parts: list[Part]) -> tuple[str, list[int]]:
    kill_at("handler begins")
    source = current_message.get().parent
    assert {id for id, _ in parts} <= {source}, "parts of another message"
    return str(source), [i for _, i in parts]


@mousetrap.stage(reads="out", retry_delays=DELAYS)
def keep(joined: tuple[str, list[int]]) -> None:
    kill_at("handler begins")
    assert sink is not None
    sink.store(joined)
    kill_at("handler ends")


def what_comes_of(i: int) -> list[int]:
    return {3: [], 5: [i, i]}.get(i % 7, [i])


def expected(n: int) -> list[int]:
    return [each for i in range(n) for each in what_comes_of(i)]


STAGES = [split, handle, join]
QUEUES = [name for each in STAGES for name in each.queue.names() if not name.endswith(".dead")]
ROLES = {each.name: f"rig.join_stages:{each.name}" for each in STAGES}
ROLES_WITH_SINK = ROLES | {"keep": "rig.join_stages:keep"}
