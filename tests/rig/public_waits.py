"""The public functions and commands that wait for a broker, and how to call each of them.

`found` lists them from the package itself, so that a new one without a row here fails a test.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from importlib import import_module

from typer.main import get_command

import mousetrap
from mousetrap import broker, call, call_async, cli, doctor, job_queue, run, send, stage
from mousetrap.amqp.publisher import Publisher
from mousetrap.broker import probe
from mousetrap.errors import BrokerUnreachable, CallTimedOut, ConnectionLost, OutcomeUnknown
from mousetrap.flows import dead_letters
from mousetrap.job_queue import drain, peek
from mousetrap.model.message import Message
from mousetrap.model.topology import Queue
from mousetrap.notebook.registry import consume
from mousetrap.runs.find_dead_letters import dead
from mousetrap.runs.former_queues import leftovers, remember
from mousetrap.start_fetch import start_fetch
from mousetrap.worker.worker import Worker

CONNECT, CONFIRM = 1.0, 1.5  # seconds; the time-outs of the settings
LIMIT = 2.0  # seconds; the time-out of each call that has one
DOCTOR = 30.0  # seconds, as documented
GONE = (BrokerUnreachable, ConnectionLost)
NO_ANSWER = (*GONE, OutcomeUnknown, CallTimedOut)


def double(n: int) -> int:
    return 2 * n


DOUBLE = stage(reads="jobs", writes="doubled")(double)


def former(at):
    """Ask for a queue that a stage used once."""
    at = at.replace(queues_expire=False)  # otherwise nothing is recorded
    remember(at, "double", ["q", "gone"])
    remember(at, "double", ["q"])
    return leftovers(at, LIMIT)


def doctors_findings(at):
    """Return normally: what the doctor finds is no exception."""
    assert any(each.state == "bad" for each in doctor._broker(at))


# before a connection is there: what is called with the settings, its time-out, its errors
CONNECTING = {
    "open_channel": (job_queue.open_channel, CONNECT, GONE),
    "drain": (lambda at: drain("q", timeout=LIMIT, settings=at), LIMIT, GONE),
    "drain, dead": (lambda at: drain("q.dead", timeout=LIMIT, settings=at), LIMIT, GONE),
    "peek": (lambda at: peek("q", settings=at, timeout=LIMIT), LIMIT, GONE),
    "purge": (lambda at: job_queue.purge("q", at, timeout=LIMIT), LIMIT, GONE),
    "depth": (lambda at: job_queue.depth("q", at, timeout=LIMIT), LIMIT, GONE),
    "depths": (lambda at: job_queue.depths(["q"], at, timeout=LIMIT), LIMIT, GONE),
    "declare": (lambda at: job_queue.declare("q", settings=at, timeout=LIMIT), LIMIT, GONE),
    "delete": (lambda at: job_queue.delete("q", settings=at, timeout=LIMIT), LIMIT, GONE),
    "delete_unused": (
        lambda at: job_queue.delete_unused([at.topology.wire_name("q")], at, timeout=LIMIT),
        LIMIT, GONE,
    ),
    "take_one": (lambda at: job_queue.take_one("q", at), CONNECT, GONE),
    "ping": (lambda at: job_queue.ping(at, LIMIT), LIMIT, GONE),
    "dead": (lambda at: dead("q", settings=at, timeout=LIMIT), LIMIT, GONE),
    "dead_letters": (lambda at: dead_letters.dead_letters("q", 9, at, timeout=LIMIT), LIMIT, GONE),
    "replay": (lambda at: dead_letters.replay("q", settings=at), CONFIRM, GONE),
    "send": (lambda at: send("q", 1, settings=at), CONNECT, GONE),
    "call": (lambda at: call("q", 1, LIMIT, at), LIMIT, GONE),
    "call_async": (lambda at: asyncio.run(call_async("q", 1, LIMIT, at)), LIMIT, GONE),
    "start_fetch": (lambda at: start_fetch(settings=at), CONNECT, GONE),
    "Publisher.open": (lambda at: Publisher(at).open(), CONNECT, GONE),
    "Worker.start": (lambda at: Worker(Queue("q"), double, at).start(), CONNECT, GONE),
    "Stage.start": (lambda at: DOUBLE.start(at), CONNECT, GONE),
    "consume": (lambda at: consume("q", double, at), CONNECT, GONE),
    "Run.start": (lambda at: run(DOUBLE, at).start(), CONNECT, GONE),
    "leftovers": (former, LIMIT, GONE),
    "ensure": (lambda at: broker.ensure("external", at), CONNECT, GONE),
    "up": (lambda at: broker.up("external", at), CONNECT, GONE),
    "overview": (broker.overview, CONNECT, GONE),
    "version": (lambda at: probe.version(at, LIMIT), LIMIT, ()),
    "examine": (doctors_findings, DOCTOR, ()),
    "External.status": (lambda at: broker.KINDS["external"].status(at), 3.0, ()),
}  # fmt: skip
# after that: also the method at which the broker falls silent, and how often it comes before
CONNECTED = {
    "open_channel": ("Queue.Declare", 2, job_queue.open_channel, CONFIRM, GONE),
    "drain, first": ("Basic.Get", 1, CONNECTING["drain"][0], LIMIT, GONE),
    "drain, many": ("Basic.Deliver", 30, CONNECTING["drain"][0], LIMIT, GONE),
    "drain, acks": ("Basic.Ack", 2, CONNECTING["drain"][0], LIMIT, GONE),
    "peek": ("Basic.Get", 5, CONNECTING["peek"][0], LIMIT, GONE),
    "purge": ("Queue.Purge", 1, CONNECTING["purge"][0], LIMIT, GONE),
    "depth": ("Queue.Declare", 1, CONNECTING["depth"][0], LIMIT, GONE),
    "declare": ("Queue.Declare", 1, CONNECTING["declare"][0], LIMIT, GONE),
    "delete": ("Queue.Delete", 1, CONNECTING["delete"][0], LIMIT, GONE),
    "delete_unused": ("Queue.Delete", 1, CONNECTING["delete_unused"][0], LIMIT, GONE),
    "ping": ("Basic.Publish", 1, CONNECTING["ping"][0], LIMIT, GONE),
    "dead": ("Basic.Get", 2, CONNECTING["dead"][0], LIMIT, GONE),
    "replay": ("Basic.Publish", 3, CONNECTING["replay"][0], CONFIRM + 1, (*GONE, OutcomeUnknown)),
    "replay, get": ("Basic.Get", 3, CONNECTING["replay"][0], CONFIRM, GONE),
    "send": ("Basic.Publish", 1, CONNECTING["send"][0], CONFIRM + 1, ()),
    "call": ("Basic.Publish", 1, CONNECTING["call"][0], LIMIT, NO_ANSWER),
    "call_async": ("Basic.Publish", 1, CONNECTING["call_async"][0], LIMIT, NO_ANSWER),
    "Worker.start": ("Basic.Consume", 1, CONNECTING["Worker.start"][0], CONNECT, GONE),
    "leftovers": ("Queue.Declare", 1, former, LIMIT, GONE),
    "examine": ("Basic.Publish", 1, doctors_findings, DOCTOR, ()),
    "External.status": ("Basic.Publish", 1, CONNECTING["External.status"][0], 3.0, ()),
    "flush": ("Basic.Publish", 1, lambda at: publisher_waits(at, "flush"), LIMIT, TimeoutError),
    "wait": ("Basic.Publish", 1, lambda at: publisher_waits(at, "wait"), LIMIT, TimeoutError),
    "until_confirmed": (
        "Basic.Publish", 1, lambda at: publisher_waits(at, "until_confirmed"), LIMIT, TimeoutError,
    ),
}  # fmt: skip


def publisher_waits(at, how: str) -> None:
    """Publish a message and wait for its confirm."""
    publisher = Publisher(at.replace(confirm_timeout=60.0)).open()
    try:
        if how == "until_confirmed":
            publisher.publish_until_confirmed([Message(1)], "q", timeout=LIMIT)
        receipt = publisher.publish(Message(1), "q")
        receipt.wait(LIMIT) if how == "wait" else publisher.flush(LIMIT)
    finally:
        publisher.close(0.0)


# Commands with the broker's address in their environment: arguments, seconds, exit code. The broker
# is silent from the start; a command has `CONNECT` seconds unless it has a time-out of its own.
COMMANDS = {
    "mousetrap demo": ("demo", CONNECT, 3),
    "mousetrap check": ("check {notebook} --broker external", CONNECT, 3),
    "mousetrap work": ("work rig.work_stage:work", CONNECT, 3),
    "mousetrap send": ("send q 1", CONNECT, 3),
    "mousetrap queues": ("queues q q.dead", CONNECT, 3),
    "mousetrap peek": ("peek q", CONNECT, 3),
    "mousetrap drain": ("drain q --timeout 2", LIMIT, 3),
    "mousetrap sweep": ("sweep", CONNECT, 1),
    "mousetrap doctor": ("doctor", DOCTOR, 1),
    "mousetrap version": ("version", 3.0, 0),
    "mousetrap dead list": ("dead list q", CONNECT, 3),
    "mousetrap dead replay": ("dead replay q", CONNECT, 3),
    "mousetrap dead purge": ("dead purge q --yes", CONNECT, 3),
    "mousetrap broker up": ("broker up", CONNECT, 3),
    "mousetrap broker status": ("broker status", 3.0, None),
}
# Waits for a broker that falls silent under a run, a worker, a consumer: see `waits_of_a_run`.
RUNNING = {
    "Run.settle", "Run.results", "Run.stop", "Worker.attached", "Worker.wait_until", "Worker.wait",
    "Worker.stop", "Ledger.wait_for", "Handle.attached", "Handle.wait_until", "Handle.wait",
    "Handle.stop", "Publisher.close", "Publisher.flush", "Publisher.publish_until_confirmed",
    "Receipt.wait", "Supervisor.stop", "Supervisor.wait",
}  # fmt: skip
OTHER = {  # those that wait for something else than a broker that is silent, and for what
    "Publisher.finish": "called at the end of the process, by `mousetrap.amqp.process_end`",
    "Faults.kill_worker": "for a process to end",
    "Faults.wait_until_healed": "for a worker, until it has recovered from an injected fault",
    "Run.call": "for an answer, as `call` does",
    "Supervisor.wait_until_consuming": "for processes: it looks at the files that they write",
    "Stage.worker": "for nothing: the time limit of the handler",
    "stage": "for nothing: the time limit of the handler",
    "private": "for a node that it starts",
    **dict.fromkeys(("BrokerKind.join", "BrokerKind.up"), "a protocol; see `ensure` and `up`"),
    "RabbitMQNode.start": "for a node that it starts",
    "RabbitMQNode.rabbitmqctl": "for a program",
    "wait_until_ready": "for a broker that starts; also tested by tests/broker",
    "short_channel": "for nothing by itself: the other functions use it",
    **dict.fromkeys(
        (
            "mousetrap extract",
            "mousetrap describe",
            "mousetrap topology",
            "mousetrap new",
            "mousetrap notebooks",
        ),
        "for nothing: it asks no broker",
    ),
    "mousetrap broker down": "for the end of a process or a container",
    **dict.fromkeys(
        ("Sink.store", "Sink.store_each", "Sink.once", "Sink.rows", "Sink.close"),
        "for a database: see F49",
    ),
}


# ---- which there are -----------------------------------------------------------------------------

MODULES = ("job_queue", "broker", "broker.probe", "doctor", "start_fetch", "flows.dead_letters",
           "runs.run_lock", "runs.former_queues", "worker.supervisor")  # fmt: skip
PARAMETERS = {"timeout", "grace", "deadline", "total_deadline", "stop_timeout"}
ERRORS = re.compile(
    r"\b(BrokerUnreachable|ConnectionLost|WireError|TimeoutError|NotSettled|SinkBusy)\b"
)


def found() -> set[str]:
    """Return the public functions, methods and commands with a time-out, or an error for one."""
    objects = [getattr(mousetrap, name) for name in mousetrap.__all__]
    for name in MODULES:
        module = import_module(f"mousetrap.{name}")
        listed = getattr(module, "__all__", ())
        objects += [
            value
            for key, value in vars(module).items()
            if key in listed
            or (not key.startswith("_") and getattr(value, "__module__", "") == module.__name__)
        ]
    names = set()
    for each in objects:
        if inspect.isclass(each) and each.__module__.startswith("mousetrap."):
            methods = {
                key: value for base in reversed(each.__mro__)
                if base.__module__.startswith("mousetrap.")
                for key, value in vars(base).items() if not key.startswith("_")
            }  # fmt: skip
            names |= {f"{each.__name__}.{key}" for key, value in methods.items() if _waits(value)}
        elif _waits(each):
            names.add(each.__name__)
    return names | set(commands(get_command(cli.app), "mousetrap"))


def commands(command, path: str) -> list[str]:
    """Return the paths of all commands without subcommands."""
    below = getattr(command, "commands", None)
    if below is None:
        return [path]
    return [each for name, sub in below.items() for each in commands(sub, f"{path} {name}")]


def _waits(value: object) -> bool:
    function = getattr(value, "__func__", value)
    if not inspect.isfunction(function) or not function.__module__.startswith("mousetrap."):
        return False
    parameters = set(inspect.signature(function).parameters)
    return bool(parameters & PARAMETERS or ERRORS.search(function.__doc__ or ""))
