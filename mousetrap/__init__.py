"""Prototype RabbitMQ flows in Jupyter, ship the same functions as workers, prove that it works.

`mousetrap/ARCHITECTURE.md` describes the folders, the way of a message and the terms.

A name is imported when it is first used, so ``import mousetrap`` is cheap: pytest imports this
package, for its plugin, in every project where it is installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what `_HOMES` says, for those who read without running
    from mousetrap.amqp.publisher import Publisher
    from mousetrap.amqp.receipt import Receipt
    from mousetrap.errors import MousetrapError, Reject
    from mousetrap.fault_injection.injector import Faults, faults
    from mousetrap.flows.recording import Recording
    from mousetrap.flows.send import SendResult, send
    from mousetrap.flows.stage import Stage, stage
    from mousetrap.job_queue import QUEUES, declare, depth, drain, open_channel, peek, ping, purge
    from mousetrap.model.ledger import Ledger
    from mousetrap.model.message import Message
    from mousetrap.model.message_list import Messages
    from mousetrap.model.summary import RunSummary
    from mousetrap.model.topology import Queue
    from mousetrap.notebook.handle import Handle
    from mousetrap.notebook.panel import Panel, panel
    from mousetrap.notebook.registry import consume
    from mousetrap.runs.dead_letter_list import DeadLetterList, dead
    from mousetrap.runs.run import Run, run
    from mousetrap.settings import Settings
    from mousetrap.sink import Sink
    from mousetrap.worker.worker import Worker

__version__ = "0.1.0"

__all__ = [  # noqa: RUF022 -- in groups, as a table of contents
    # a flow: functions bound to queues
    "stage", "Stage", "Queue", "Reject",
    # sending and working
    "send", "SendResult", "Message", "Messages", "Publisher", "Receipt", "Worker",
    # a consumer in the background, safe to run again
    "consume", "Handle",
    # short questions to a queue
    "open_channel", "declare", "depth", "peek", "drain", "purge", "ping", "QUEUES",
    # what is going on; what died, why, and back again
    "panel", "Panel", "dead", "DeadLetterList",
    # one execution of a flow, and what became of it
    "run", "Run", "RunSummary", "Ledger", "Recording",
    # results, each once
    "Sink",
    # faults on purpose
    "faults", "Faults",
    # where the broker is, and what can go wrong
    "Settings", "MousetrapError",
]  # fmt: skip

_HOMES = {
    "runs.dead_letter_list": ("DeadLetterList", "dead"),
    "flows.recording": ("Recording",),
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
    "model.summary": ("RunSummary",),
    "runs.run": ("Run", "run"),
    "flows.send": ("SendResult", "send"),
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
