"""Prototype RabbitMQ flows in Jupyter, ship the same functions as workers, prove that it works.

`mousetrap/ARCHITECTURE.md` describes the folders, the way of a message and the terms. `__all__` is
a table of contents of the public names.

A name is imported when it is first used, so ``import mousetrap`` is cheap: pytest imports this
package, for its plugin, in every project where it is installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same as `_HOMES`, for type checkers and editors
    from mousetrap.amqp.publisher import Publisher
    from mousetrap.amqp.receipt import Receipt
    from mousetrap.errors import FailedItems, MousetrapError, Reject
    from mousetrap.fault_injection.injector import Faults, faults
    from mousetrap.flows.call import call, call_async
    from mousetrap.flows.recording import Recording
    from mousetrap.flows.send import SendResult, send
    from mousetrap.flows.stage import Stage, stage
    from mousetrap.job_queue import QUEUES, declare, depth, drain, open_channel, peek, ping, purge
    from mousetrap.model.batch import Batch
    from mousetrap.model.exchanges import Exchange
    from mousetrap.model.join_groups import Join
    from mousetrap.model.join_headers import Missing
    from mousetrap.model.ledger import Ledger
    from mousetrap.model.message import Message
    from mousetrap.model.message_list import Messages
    from mousetrap.model.summary import RunSummary
    from mousetrap.model.targets import Send
    from mousetrap.model.topology import Queue
    from mousetrap.notebook.handle import Handle
    from mousetrap.notebook.panel import Panel, panel
    from mousetrap.notebook.registry import consume
    from mousetrap.runs.dead_letter_list import DeadLetterList
    from mousetrap.runs.find_dead_letters import dead
    from mousetrap.runs.flow_description import FlowDescription, describe
    from mousetrap.runs.run import Run, run
    from mousetrap.settings import Settings
    from mousetrap.sink import Sink
    from mousetrap.worker.worker import Worker

__version__ = "0.1.0"

__all__ = [  # noqa: RUF022 -- in groups, as a table of contents
    # a flow: functions bound to queues
    "stage", "Stage", "Queue", "Exchange", "Send", "Reject", "Batch", "FailedItems",
    "Join", "Missing",
    # what a flow consists of: a picture, and an AsyncAPI document
    "describe", "FlowDescription",
    # messages, sending and handling them
    "send", "SendResult", "call", "call_async",
    "Message", "Messages", "Publisher", "Receipt", "Worker",
    # a consumer in the background of a notebook; the cell can be run again
    "consume", "Handle",
    # reading, filling and emptying a queue once
    "open_channel", "declare", "depth", "peek", "drain", "purge", "ping", "QUEUES",
    # watching queues and workers; dead letters, their reasons, and replay
    "panel", "Panel", "dead", "DeadLetterList",
    # one run of a flow, its ledger and its summary
    "run", "Run", "RunSummary", "Ledger", "Recording",
    # storing each result exactly once
    "Sink",
    # injecting faults
    "faults", "Faults",
    # where the broker is; the base of all errors
    "Settings", "MousetrapError",
]  # fmt: skip

_HOMES = {
    "errors": ("FailedItems", "MousetrapError", "Reject"),
    "settings": ("Settings",),
    "model.topology": ("Queue",),
    "model.message": ("Message",),
    "model.message_list": ("Messages",),
    "model.batch": ("Batch",),
    "model.exchanges": ("Exchange",),
    "model.join_groups": ("Join",),
    "model.join_headers": ("Missing",),
    "model.ledger": ("Ledger",),
    "model.summary": ("RunSummary",),
    "model.targets": ("Send",),
    "amqp.publisher": ("Publisher",),
    "amqp.receipt": ("Receipt",),
    "worker.worker": ("Worker",),
    "job_queue": (
        "QUEUES", "declare", "depth", "drain", "open_channel", "peek", "ping", "purge",
    ),
    "flows.stage": ("Stage", "stage"),
    "flows.send": ("SendResult", "send"),
    "flows.call": ("call", "call_async"),
    "flows.recording": ("Recording",),
    "runs.flow_description": ("FlowDescription", "describe"),
    "runs.run": ("Run", "run"),
    "runs.dead_letter_list": ("DeadLetterList",),
    "runs.find_dead_letters": ("dead",),
    "sink": ("Sink",),
    "notebook.handle": ("Handle",),
    "notebook.panel": ("Panel", "panel"),
    "notebook.registry": ("consume",),
    "fault_injection.injector": ("Faults", "faults"),
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
    """Return the names imported so far and every public name."""
    return sorted({*globals(), *__all__})
