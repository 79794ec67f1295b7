"""Prototype RabbitMQ flows in Jupyter, ship the same functions as workers, prove that it works.

The way of a message, once:

1. `message.Message` gives a body an id, an attempt number and a parent.
2. `publisher.Publisher` hands it to the I/O thread and returns a receipt at once; the broker's
   confirm, return or refusal resolves it.
3. `topology.Queue` says where it waits, and where its failures wait.
4. `consumer.Consumer` takes it (bounded prefetch) and `worker.Worker` hands it, decoded and
   validated, to the function on a thread of its own.
5. The function, a `stage.stage`: data in, data out. It never sees a channel.
6. The outputs are published; when the broker has confirmed them, the message's `fate.Fate` is told
   on the events exchange; when that is confirmed too, and only then, the source is acked.
7. A failure goes through `retry.decide`: into a retry queue and back, or into the dead queue with
   its reason; that too is confirmed before the source is acked.
8. Whoever binds a queue to the events exchange hears of every message: a `run.Run` does, and knows
   by its `ledger.Ledger` when all of them have met their end.
"""

from __future__ import annotations

from mousetrap.case import Case
from mousetrap.errors import MousetrapError, Reject
from mousetrap.job_queue import QUEUES, declare, depth, drain, open_channel, peek, ping, purge
from mousetrap.ledger import Ledger
from mousetrap.message import Message
from mousetrap.notebook.handle import Handle
from mousetrap.notebook.registry import consume
from mousetrap.publisher import Publisher
from mousetrap.receipt import Receipt
from mousetrap.record import Record
from mousetrap.run import Run, run
from mousetrap.settings import Settings
from mousetrap.stage import Stage, stage
from mousetrap.topology import Queue
from mousetrap.worker import Worker

__version__ = "0.1.0"

__all__ = [  # noqa: RUF022 -- in groups, as a table of contents
    # a flow: functions bound to queues
    "stage", "Stage", "Queue", "Reject",
    # sending and working
    "Message", "Publisher", "Receipt", "Worker",
    # a consumer in the background, safe to run again
    "consume", "Handle",
    # short questions to a queue
    "open_channel", "declare", "depth", "peek", "drain", "purge", "ping", "QUEUES",
    # one execution of a flow, and what became of it
    "run", "Run", "Record", "Ledger", "Case",
    # where the broker is, and what can go wrong
    "Settings", "MousetrapError",
]  # fmt: skip
