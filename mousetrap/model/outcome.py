"""What became of one handling of one message, as a fact that can be told to others.

A worker publishes its fates to the events exchange, many in one body, and acks a message only
after the broker has confirmed its fate. Whoever binds a queue there hears of every message; who
does not pays for a drop. Nothing here talks to a broker. Prototyped in
``notebooks/07_runs.ipynb``.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from mousetrap.model.message import child_id, decode

OutcomeKind = Literal["done", "retried", "dead"]


class Output(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One message that a handling sent on: its id, its queue by plain name, perhaps its body.

    Before it is packed the id may be empty: it is the one that `Message.child` gives.
    """

    id: str
    queue: str
    body: bytes | None = None


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What became of one handling of message *id*; two handlings of it never compare equal.

    `done`: its outputs are confirmed. `retried`: it waits `delay` seconds and comes again as
    attempt + 1. `dead`: it is in the dead queue. `begun` is in seconds since 1970 on the clock of
    the worker (another machine's may go wrong), `seconds` how long the function took.
    """

    id: str
    kind: OutcomeKind
    stage: str
    queue: str  # that it was read from, by its plain name
    worker: str  # host:pid
    begun: float
    seconds: float
    attempt: int = 1
    job: str = ""  # empty: it is the job
    parent: str | None = None
    outputs: tuple[Output, ...] = ()
    reason: str = ""
    traceback: str = ""
    delay: float = 0.0
    body: bytes | None = None  # of the message itself, if it is a job's and bodies are kept

    @property
    def is_final(self) -> bool:
        """Nothing more is to be expected of this message."""
        return self.kind != "retried"

    @property
    def ended(self) -> float:
        """When the function returned or raised; its outputs were sent just then."""
        return self.begun + self.seconds


class _Row(msgspec.Struct, array_like=True, gc=False):
    """What tells one fate of a `_Batch` from the others."""

    id: str
    begun: float
    seconds: float
    attempt: int
    job: str
    parent: str | None  # empty: it is the job


class _Batch(msgspec.Struct, omit_defaults=True):
    """Fates of a worker. Nearly all are done, with outputs alike: told in short, for bytes cost."""

    stage: str = ""
    queue: str = ""
    worker: str = ""
    writes: tuple[str, ...] = ()  # the queue of each output
    done: Sequence[Any] = ()  # `_Row`s
    others: Sequence[Outcome] = ()


class _Read(_Batch):
    done: Sequence[_Row] = ()


@functools.lru_cache(maxsize=1000)
def outputs_to(queue: str, number: int) -> tuple[Output, ...]:
    """Return *number* outputs to *queue*, by their place: the same object each time.

    So `pack` knows at a glance which fates are alike.
    """
    return (Output("", queue),) * number


def pack(outcomes: Sequence[Outcome]) -> bytes:
    """Return *fates* as the body of one message; their order is not kept."""
    model = next((each for each in outcomes if each.kind == "done"), outcomes[0])
    stage, queue, worker, outputs = model.stage, model.queue, model.worker, model.outputs
    if any(each.id or each.body for each in outputs):
        return msgspec.json.encode(_Batch(others=[_whole(each) for each in outcomes]))
    done, others = [], []
    for each in outcomes:
        if (
            each.outputs is outputs
            and each.kind == "done"
            and each.body is None
            and each.stage == stage
            and each.queue == queue
            and each.worker == worker
            and each.parent != ""
        ):
            parent = "" if each.parent == each.job else each.parent
            done.append((each.id, each.begun, each.seconds, each.attempt, each.job, parent))
        else:
            others.append(_whole(each))
    writes = tuple([each.queue for each in outputs])
    return msgspec.json.encode(_Batch(stage, queue, worker, writes, done, others))


def unpack(body: bytes) -> list[Outcome]:
    """Return the fates that `pack` put into *body*; what sent on something knows its ids again.

    Raises:
        UndecodableMessage: these are not fates.
    """
    batch: _Read = decode(body, _Read)
    done = [
        Outcome(row.id, "done", batch.stage, batch.queue, batch.worker, row.begun, row.seconds,
             row.attempt, row.job, row.job if row.parent == "" else row.parent,
             _outputs(row.id, batch))
        for row in batch.done
    ]  # fmt: skip
    return [*done, *batch.others]


def _outputs(id: str, batch: _Batch) -> tuple[Output, ...]:
    return tuple([
        Output(child_id(id, batch.stage, n), queue) for n, queue in enumerate(batch.writes)
    ])  # fmt: skip


def _whole(outcome: Outcome) -> Outcome:
    """Return *fate* with the ids of its outputs."""
    if all(each.id for each in outcome.outputs):
        return outcome
    outputs = tuple(
        Output(each.id or child_id(outcome.id, outcome.stage, n), each.queue, each.body)
        for n, each in enumerate(outcome.outputs)
    )
    return msgspec.structs.replace(outcome, outputs=outputs)
