"""``mousetrap send``: sends messages from the shell and waits for the confirms."""

from __future__ import annotations

import os
import sys
from collections import Counter, deque
from pathlib import Path
from typing import Annotated

import typer

from mousetrap import job_queue
from mousetrap.amqp.properties import sent_properties
from mousetrap.amqp.publisher import Publisher
from mousetrap.amqp.receipt import Receipt
from mousetrap.broker import probe
from mousetrap.cli.console import print_error, print_json, print_message
from mousetrap.cli.errors import ExitCode
from mousetrap.cli.options import Json, Name, finite
from mousetrap.display.progress import ProgressDisplay
from mousetrap.errors import PublishError, SettingsError, UndecodableMessage
from mousetrap.flows.delayed import waiting_queue
from mousetrap.model.decoding import decode
from mousetrap.model.delays import SendOptions
from mousetrap.model.encoding import encode
from mousetrap.model.message import Message
from mousetrap.runtime.postponed_interrupts import PostponedInterrupts, postponed
from mousetrap.settings import Settings

MAX_IDS = 1000  # printed; a guess: more than a person reads, less than a screen buffer holds


def send(
    queue: Name,
    body: Annotated[
        str | None, typer.Argument(metavar="BODY", help="JSON; - reads it from standard input.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="The body; a .jsonl file is one body per line.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Send it this many times.")] = 1,
    raw: Annotated[
        bool, typer.Option("--raw", help="Send the text unchanged, JSON or not.")
    ] = False,
    declare: Annotated[
        bool, typer.Option("--declare", help="Declare the queue first, if it is missing.")
    ] = False,
    delay: Annotated[
        float, typer.Option(min=0, callback=finite, help="Deliver it so many seconds later.")
    ] = 0.0,
    priority: Annotated[
        int | None, typer.Option(min=0, max=255, help="For a queue that has priorities.")
    ] = None,
    json: Json = False,
) -> None:
    """Send messages to QUEUE and wait until the broker has confirmed each.

    Without BODY the body is empty; a stage then runs its default job. A delay of up to 604800
    seconds (7 days) is kept within 5 % or 0.1 seconds.

    Example: mousetrap send start_fetch '{"seed": 1}' --count 100

    Example: mousetrap send words --file words.jsonl --declare

    Example: mousetrap send reminders '"call back"' --delay 3600
    """
    settings = Settings.from_environment()
    options = _options(delay, priority)
    bodies = _bodies(body, file, raw)
    if declare:
        job_queue.declare(queue, settings=settings)
    tally = _Outcomes()
    with postponed() as interrupts:  # each message that is published is counted
        try:
            _send(queue, bodies, count, settings, tally, interrupts, options)
        finally:  # also after an interrupt: some messages were confirmed
            outcomes = tally.sum_up()
            if json:
                print_json({"sent": tally.sent, **outcomes, "ids": tally.ids})
            elif outcomes:
                counts = ", ".join(f"{number:,} {outcome}" for outcome, number in outcomes.items())
                is_memory = set(outcomes) == {"confirmed"}  # otherwise do not ask a silent broker
                print_message(counts + (probe.memory_note(settings) if is_memory else ""))
    if tally.problem is not None:
        hint = " (here: --declare)" if outcomes["returned"] else ""
        print_error(f"{tally.problem}{hint}")
        raise typer.Exit(ExitCode.FAILED)


def _send(
    queue: str,
    bodies: list[bytes],
    count: int,
    settings: Settings,
    tally: _Outcomes,
    interrupts: PostponedInterrupts,
    options: SendOptions,
) -> None:
    total = len(bodies) * count
    with (
        Publisher(settings, "send") as out,
        ProgressDisplay(f"sending to {queue}", total) as display,
    ):
        place = waiting_queue(out, queue, options.delay) if options.delay else queue
        for each in (each for _ in range(count) for each in bodies):
            interrupts.deliver()
            properties = None if options.priority is None else sent_properties(options.priority)
            tally.add(out.publish(Message(body=each), place, properties=properties))
            display.advance(tally.settled)
        out.flush(settings.confirm_timeout + 1)


class _Outcomes:
    """Counts the outcomes as they become known, without keeping all messages in memory."""

    def __init__(self) -> None:
        self.sent = 0
        self.ids: list[str] = []  # of the first ones
        self.problem: PublishError | None = None
        self._outcomes: Counter[str] = Counter()
        self._open: deque[Receipt] = deque()

    @property
    def settled(self) -> int:
        return self.sent - len(self._open)

    def add(self, receipt: Receipt) -> None:
        self.sent += 1
        if self.sent <= MAX_IDS:
            self.ids.append(receipt.message.id)
        self._open.append(receipt)
        while self._open and self._open[0].state != "waiting":
            self._count(self._open.popleft())

    def sum_up(self) -> Counter[str]:
        """Count the receipts that are left, in whatever state they are."""
        while self._open:
            self._count(self._open.popleft())
        return self._outcomes

    def _count(self, receipt: Receipt) -> None:
        self._outcomes[receipt.state] += 1
        self.problem = self.problem or receipt.error


def _options(delay: float, priority: int | None) -> SendOptions:
    try:
        return SendOptions.checked(priority, delay)
    except ValueError as error:
        raise SettingsError(f"--delay or --priority: {error}") from None


def _bodies(body: str | None, file: Path | None, raw: bool) -> list[bytes]:
    if file is not None and body is not None:
        raise SettingsError("both a BODY and --file are given: give one of them")
    lines: list[tuple[str, bytes]]  # (where it is, for an error; the body)
    if file is None:
        # fsencode returns the bytes that the shell passed, UTF-8 or not
        lines = [("", sys.stdin.buffer.read() if body == "-" else os.fsencode(body or ""))]
    else:
        try:
            data = file.read_bytes()
        except OSError as error:
            raise SettingsError(f"cannot read {file}: {error.strerror}") from error
        if file.suffix == ".jsonl":
            numbered = enumerate(data.splitlines(), 1)
            lines = [(f"line {n} of {file}: ", line) for n, line in numbered if line.strip()]
        else:
            lines = [(f"{file}: ", data)]
    if not lines:
        raise SettingsError(f"{file} is empty: there is nothing to send")
    for where, each in lines:
        try:
            encode(each)  # the broker would close the channel on one that is too large
            if each and not raw:
                decode(each)
        except UndecodableMessage as error:
            raise SettingsError(f"{where}{error}; send it unchanged with --raw") from None
        except ValueError as error:
            raise SettingsError(f"{where}{error}") from None
    return [each for _, each in lines]
