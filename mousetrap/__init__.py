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

A name is imported when it is first asked for: whoever only looks at the package (pytest, which
finds our plugin in it, in every project where we are installed) pays for none of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what `_HOMES` says, for those who read without running
    from mousetrap.amqp.publisher import Publisher
    from mousetrap.amqp.receipt import Receipt
    from mousetrap.errors import MousetrapError, Reject
    from mousetrap.fault_injection.injector import Faults, faults
    from mousetrap.flows.recording import Case
    from mousetrap.flows.send import Sent, send
    from mousetrap.flows.stage import Stage, stage
    from mousetrap.job_queue import QUEUES, declare, depth, drain, open_channel, peek, ping, purge
    from mousetrap.model.ledger import Ledger
    from mousetrap.model.message import Message
    from mousetrap.model.message_list import Messages
    from mousetrap.model.summary import Record
    from mousetrap.model.topology import Queue
    from mousetrap.notebook.handle import Handle
    from mousetrap.notebook.panel import Panel, panel
    from mousetrap.notebook.registry import consume
    from mousetrap.runs.dead_letter_list import Bench, dead
    from mousetrap.runs.run import Run, run
    from mousetrap.settings import Settings
    from mousetrap.sink import Sink
    from mousetrap.worker.worker import Worker

__version__ = "0.1.0"

__all__ = [  # noqa: RUF022 -- in groups, as a table of contents
    # a flow: functions bound to queues
    "stage", "Stage", "Queue", "Reject",
    # sending and working
    "send", "Sent", "Message", "Messages", "Publisher", "Receipt", "Worker",
    # a consumer in the background, safe to run again
    "consume", "Handle",
    # short questions to a queue
    "open_channel", "declare", "depth", "peek", "drain", "purge", "ping", "QUEUES",
    # what is going on; what died, why, and back again
    "panel", "Panel", "dead", "Bench",
    # one execution of a flow, and what became of it
    "run", "Run", "Record", "Ledger", "Case",
    # results, each once
    "Sink",
    # faults on purpose
    "faults", "Faults",
    # where the broker is, and what can go wrong
    "Settings", "MousetrapError",
]  # fmt: skip

_HOMES = {
    "runs.dead_letter_list": ("Bench", "dead"),
    "flows.recording": ("Case",),
    "errors": ("MousetrapError", "Reject"),
    "fault_injection.injector": ("Faults", "faults"),
    "job_queue": (
        "QUEUES", "declare", "depth", "drain", "open_channel", "peek", "ping", "purge",
    ),
    "model.ledger": ("Ledger",),
    "model.message": ("Message",),
    "notebook.handle": ("Handle",),
    "notebook.registry": ("consume",),
    "model.message_list": ("Messages",),
    "notebook.panel": ("Panel", "panel"),
    "amqp.publisher": ("Publisher",),
    "amqp.receipt": ("Receipt",),
    "model.summary": ("Record",),
    "runs.run": ("Run", "run"),
    "flows.send": ("Sent", "send"),
    "settings": ("Settings",),
    "sink": ("Sink",),
    "flows.stage": ("Stage", "stage"),
    "model.topology": ("Queue",),
    "worker.worker": ("Worker",),
}  # fmt: skip
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name, or a module of the package, when it is first used (PEP 562)."""
    if home := _HOME_OF.get(name):
        value = getattr(import_module(f"{__name__}.{home}"), name)
        globals()[name] = value
        return value
    if not name.startswith("_"):
        try:
            return import_module(f"{__name__}.{name}")  # mousetrap.job_queue.depths(...)
        except ModuleNotFoundError as missing:
            if missing.name != f"{__name__}.{name}":
                raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List what is here already, and every public name."""
    return sorted({*globals(), *__all__})
