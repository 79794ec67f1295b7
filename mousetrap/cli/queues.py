"""``mousetrap queues``, ``peek`` and ``drain``: show the messages in queues."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Annotated, Any

import typer

from mousetrap import job_queue
from mousetrap.amqp.queue_depth import Depth, is_not_needed_yet
from mousetrap.broker import probe
from mousetrap.broker.management import held_back_lines
from mousetrap.cli.console import (
    BODY_WIDTH,
    print_error,
    print_json,
    print_line,
    print_message,
    print_table,
)
from mousetrap.cli.errors import ExitCode
from mousetrap.cli.options import Full, Json, Name, finite, queue_names
from mousetrap.display.formats import counted
from mousetrap.display.progress import ProgressDisplay
from mousetrap.display.safe_text import safe
from mousetrap.errors import UndecodableMessage
from mousetrap.model.message import Message
from mousetrap.run_fetch_worker import fetch
from mousetrap.run_processing_worker import process
from mousetrap.runs.former_queues import leftovers
from mousetrap.runs.worker_loads import WorkerLoad, worker_loads
from mousetrap.runtime.postponed_interrupts import postponed
from mousetrap.settings import Settings


def show_queues(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="QUEUE", callback=queue_names, help="Default: those of the demo."),
    ] = None,
    json: Json = False,
) -> None:
    """Show how many messages wait in each queue, and what its consumers hold.

    *messages* wait in the queue. *held* have been delivered to workers and are not acked;
    *prefetch* is how many one worker may hold at present. Both are known of workers of mousetrap
    only: a "+" means that other consumers may hold more.

    Example: mousetrap queues

    Example: mousetrap queues words words.dead --json
    """
    settings = Settings.from_environment()
    wanted = names or [*fetch.queue.names(), *process.queue.names(), *process.targets.queues]
    found = dict(zip(wanted, job_queue.depths(wanted, settings), strict=True))
    for name in names or ():
        if found[name] is None and is_not_needed_yet(name, settings):
            found[name] = Depth(name, 0, 0)
    existing = [each for each in found.values() if each]
    consumers = {settings.topology.wire_name(e.queue): e.consumers for e in existing if e.consumers}
    loads = worker_loads(consumers, settings)
    rows = [
        _row(each, loads.get(settings.topology.wire_name(each.queue), WorkerLoad()))
        for each in existing
    ]
    if json:
        print_json(rows)
    elif existing:
        print_table(
            ("queue", "messages", "held", "consumers", "prefetch"),
            (_cells(each) for each in rows),
            f"{settings.url}{probe.memory_note(settings)}"
            + f", namespace {settings.namespace}" * bool(settings.namespace),
        )
    if not json:
        for line in [*held_back_lines(found, settings), *map(str, leftovers(settings))]:
            print_error(line)
    missing = ", ".join(name for name, each in found.items() if not each)
    if names and missing:
        print_error(f"there is no queue {missing}: check its name and MOUSETRAP_NAMESPACE")
        raise typer.Exit(ExitCode.FAILED)
    if not existing:
        print_message(f"none of the demo's queues exists on {settings.url} yet"
            f"{probe.memory_note(settings)}: run mousetrap demo, or name "
            f"the queues to show")  # fmt: skip


def _row(depth: Depth, load: WorkerLoad) -> dict[str, Any]:
    """Return the figures of a queue; None where no worker has said them."""
    is_known = load.answered or not depth.consumers
    return {
        **asdict(depth),
        "workers": load.answered,
        "held": load.held if is_known else None,
        "prefetch": [load.least, load.most] if load.most else None,
    }


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    held = "?" if row["held"] is None else f"{row['held']:,}"
    if row["held"] is not None and row["workers"] < row["consumers"]:
        held += "+"
    prefetch = " to ".join(dict.fromkeys(f"{each:,}" for each in row["prefetch"] or ()))
    return row["queue"], f"{row['messages']:,}", held, f"{row['consumers']:,}", prefetch


def peek_queue(
    queue: Name,
    n: Annotated[int, typer.Option("-n", min=1, help="How many at most.")] = 10,
    full: Full = False,
    json: Json = False,
) -> None:
    """Show the first messages of QUEUE and return them (marked as redelivered).

    Example: mousetrap peek results -n 3
    """
    _print_messages(job_queue.peek(queue, n, Settings.from_environment()), full, json)


def drain_queue(
    queue: Name,
    n: Annotated[
        int | None, typer.Option("-n", min=1, help="Wait for this number of messages.")
    ] = None,
    idle: Annotated[
        float,
        typer.Option(
            min=0, callback=finite, help="End when no message came for this many seconds."
        ),
    ] = 0.0,
    timeout: Annotated[
        float, typer.Option(min=0, callback=finite, help="End after this many seconds.")
    ] = 30.0,
    full: Full = False,
    json: Json = False,
) -> None:
    """Take messages out of QUEUE and print them; it always ends.

    Each message is printed before it is acked, so whatever ends the command, none is lost. Exit
    code 1 if fewer than -n messages came (with --idle, -n is only a limit).

    Example: mousetrap drain results -n 100 --timeout 60 --json > results.jsonl
    """
    count = 0
    # a bar and the messages would overwrite each other on one terminal
    hidden = sys.stdout.isatty()
    with (
        postponed() as interrupts,
        ProgressDisplay(f"draining {queue}", n, is_hidden=hidden) as display,
    ):

        def take(message: Message) -> None:
            nonlocal count
            if json:
                print_json(_as_dict(message), interrupts)
            else:
                print_line(_as_line(message, full), interrupts)
            count += 1
            display.advance(count)

        settings = Settings.from_environment()
        try:
            job_queue.drain(
                queue, n, idle=idle, timeout=timeout, settings=settings, on_message=take
            )
        finally:
            print_message(f"{counted(count, 'message')} out of {queue}")
    if n is not None and not idle and count < n:
        print_error(f"{count:,} of {n:,} messages came to {queue} in {timeout:g} s")
        raise typer.Exit(ExitCode.FAILED)


def _print_messages(messages: list[Message], full: bool, json: bool) -> None:
    if json:
        for message in messages:
            print_json(_as_dict(message))
        return
    rows: Iterator[tuple[object, ...]] = (
        (message.id[:8], message.attempt, f"{len(message.body):,} B", _body(message, full))
        for message in messages
    )
    print_table(
        ("id", "attempt", "size", "body"), rows, counted(len(messages), "message"), prose=["body"]
    )


def _as_line(message: Message, full: bool) -> str:
    """Return the row of a table whose other rows are not known yet."""
    size = f"{len(message.body):,} B"
    return f"{safe(message.id[:8]):<8}  {message.attempt:>3}  {size:>10}  {_body(message, full)}"


def _body(message: Message, full: bool) -> str:
    return safe(
        message.readable_body.decode("utf-8", "backslashreplace"), None if full else BODY_WIDTH
    )


def _as_dict(message: Message) -> dict[str, Any]:
    try:
        body = {"data": message.data}
    except UndecodableMessage:
        body = {"body": message.readable_body.decode("utf-8", "backslashreplace")}
    return {"id": message.id, "job": message.job, "parent": message.parent,
            "attempt": message.attempt, **body}  # fmt: skip
