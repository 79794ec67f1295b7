"""The outcome of one attempt at one message, and its encoding for the events exchange.

A worker publishes outcomes to the events exchange, many in one body, and acks a message only after
the broker has confirmed its outcome. A queue that is bound to that exchange by the key of a
namespace receives the outcome of every message of the namespace; where no queue is bound, the
broker drops the outcomes, which costs little. Nothing here talks to a broker. Prototyped in
``notebooks/07_runs.ipynb``.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal

import msgspec

from mousetrap.errors import UndecodableMessage
from mousetrap.model.decoding import decode
from mousetrap.model.delays import waiting_time
from mousetrap.model.message import child_id
from mousetrap.model.targets import Address

OutcomeKind = Literal["done", "retried", "dead"]


class Output(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One message that an attempt published: its id, its queue by plain name, perhaps its body.

    A worker may leave the id empty: it stands for the id that `Message.child` gives. `unpack`
    returns every output with its id. If it was published to an *exchange* (its plain name), `queue`
    is the routing key. It reaches its queue *delay* seconds later. *is_own* says that the handler
    sent it itself, by `mousetrap.send`.
    """

    id: str
    queue: str
    body: bytes | None = None
    exchange: str = ""
    delay: float = 0.0
    is_own: bool = False


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The outcome of one attempt at message *id*; the outcomes of two attempts differ in `begun`.

    `done`: its outputs are confirmed. `retried`: it waits `delay` seconds in a retry queue and is
    delivered again as attempt + 1. `dead`: it is in the dead queue. `begun` is in seconds since
    1970 on the worker's clock, which may differ from the reader's; `seconds` is how long the
    attempt took: decoding the body, the function, and encoding what it returned.
    """

    id: str
    kind: OutcomeKind
    stage: str
    queue: str  # plain name of the work queue, also if it was read from the quarantine queue
    worker: str  # host:pid
    begun: float
    seconds: float
    attempt: int = 1
    job: str = ""  # empty: the message is the job
    parent: str | None = None
    outputs: tuple[Output, ...] = ()
    reason: str = ""
    traceback: str = ""
    delay: float = 0.0
    body: bytes | None = None  # of the message itself, if it is a job and bodies are kept

    @property
    def is_final(self) -> bool:
        """There will be no further attempt."""
        return self.kind != "retried"

    @property
    def ended(self) -> float:
        """When the function returned or raised; its outputs were published right after that."""
        return self.begun + self.seconds


class DoneRow(msgspec.Struct, array_like=True, gc=False):
    """The fields in which the outcomes of a batch that are done differ."""

    id: str
    begun: float
    seconds: float
    attempt: int
    job: str
    parent: str | None  # empty: the job is the parent


class _Batch(msgspec.Struct, omit_defaults=True):
    """Compact encoding: outcomes that differ only in ids and times share their other fields.

    In practice nearly all outcomes are done and have the same number of outputs.
    """

    stage: str = ""
    queue: str = ""
    worker: str = ""
    writes: tuple[str, ...] = ()  # the queue of each output
    done: Sequence[Any] = ()  # `DoneRow`s
    others: Sequence[Outcome] = ()


class DecodedBatch(_Batch):
    """The outcomes of one body, as they are encoded; `outcome` makes one of a row of `done`."""

    done: Sequence[DoneRow] = ()

    def outcome(self, row: DoneRow) -> Outcome:
        """Return the outcome that *row* stands for; every output has its id again."""
        return Outcome(row.id, "done", self.stage, self.queue, self.worker, row.begun, row.seconds,
                       row.attempt, row.job, row.job if row.parent == "" else row.parent,
                       outputs_of(row.id, self.stage, self.writes))  # fmt: skip


@functools.lru_cache(maxsize=1000)
def outputs_to(queue: str, number: int) -> tuple[Output, ...]:
    """Return *number* outputs to *queue* without ids; the same object for the same arguments.

    So `pack` can compare the outputs of two outcomes by identity, which is fast.
    """
    return (Output("", queue),) * number


def output_to(
    address: Address, id: str, body: bytes | None, delay: float = 0.0, *, is_own: bool = False
) -> Output:
    """Return the output with this *id* to *address*, which a `SentMessage` has."""
    if isinstance(address, str):
        wait = waiting_time(delay) if delay else 0.0
        return Output(
            id, str(address), body, "", wait, is_own
        )  # msgspec encodes no subclass of str
    return Output(id, str(address.key), body, address.exchange.name, 0.0, is_own)


def pack(outcomes: Sequence[Outcome]) -> bytes:
    """Return *outcomes* as the body of one message; their order is not kept."""
    first = next((each for each in outcomes if each.kind == "done"), outcomes[0])
    stage, queue, worker, outputs = first.stage, first.queue, first.worker, first.outputs
    if any(each.id or each.body for each in outputs):
        return msgspec.json.encode(_Batch(others=[_with_output_ids(each) for each in outcomes]))
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
            others.append(_with_output_ids(each))
    writes = tuple([each.queue for each in outputs])
    return msgspec.json.encode(_Batch(stage, queue, worker, writes, done, others))


def unpack(body: bytes) -> list[Outcome]:
    """Return the outcomes that `pack` put into *body*; every output has its id again.

    Raises:
        UndecodableMessage: *body* does not hold outcomes.
    """
    batch = unpack_batch(body)
    return [*map(batch.outcome, batch.done), *batch.others]


def unpack_batch(body: bytes) -> DecodedBatch:
    """Return what `pack` put into *body*, still encoded compactly; raises what `unpack` does."""
    batch: DecodedBatch = decode(body, DecodedBatch)
    return batch


def pack_declared(queue: str) -> bytes:
    """Return a body that says that a worker declared *queue* (its plain name); no outcome is in it.

    `unpack` returns an empty list for it.
    """
    return msgspec.json.encode(_Batch(writes=(queue,)))


def declared_in(body: bytes) -> str | None:
    """Return the queue of `pack_declared`; None, at once, for any other body."""
    if not body.startswith(_DECLARED_PREFIX):
        return None
    with suppress(UndecodableMessage):
        batch = unpack_batch(body)
        return next(iter(batch.writes), None)
    return None


# A batch with outcomes begins with another field: a stage has a name.
_DECLARED_PREFIX = b'{"writes":'


def outputs_of(id: str, stage: str, queues: Sequence[str]) -> tuple[Output, ...]:
    """Return the outputs to *queues* that most handlings of message *id* in *stage* have."""
    return tuple([Output(child_id(id, stage, n), queue) for n, queue in enumerate(queues)])


def _with_output_ids(outcome: Outcome) -> Outcome:
    if all(each.id for each in outcome.outputs):
        return outcome
    outputs = tuple(
        each
        if each.id
        else msgspec.structs.replace(each, id=child_id(outcome.id, outcome.stage, n))
        for n, each in enumerate(outcome.outputs)
    )
    return msgspec.structs.replace(outcome, outputs=outputs)
