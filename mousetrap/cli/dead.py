"""``mousetrap dead list|replay|purge``: the dead letters of a queue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.text import Text

from mousetrap import job_queue
from mousetrap.cli.console import err, out, print_error, print_json, print_message, print_table
from mousetrap.cli.errors import ExitCode, new_app
from mousetrap.cli.options import Json, Name
from mousetrap.display.formats import age, counted, size
from mousetrap.display.progress import ProgressDisplay
from mousetrap.display.safe_text import safe
from mousetrap.flows import dead_letters
from mousetrap.model.dead_letter_kinds import kinds_of, shown_kinds
from mousetrap.model.error_kinds import MAX_KINDS, NO_REASON
from mousetrap.model.message import Message
from mousetrap.model.message_list import Messages
from mousetrap.model.topology import Queue
from mousetrap.runtime import clock
from mousetrap.runtime.postponed_interrupts import postponed
from mousetrap.settings import Settings

app = new_app("Dead letters of a queue: list, replay, delete. QUEUE is the work queue.")


@app.command("list", short_help="Show the kinds of error, or each dead letter.")
def list_dead_letters(
    queue: Name,
    n: Annotated[int, typer.Option("-n", min=1, help="How many at most.")] = 100,
    each: Annotated[
        bool, typer.Option("--each", help="Show each one, not only the kinds of error.")
    ] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where in the handler it failed.")
    ] = False,
    json: Json = False,
) -> None:
    """Show the kinds of error, or each dead letter; `peek QUEUE.dead` shows the bodies.

    Example: mousetrap dead list start_fetch --traceback
    """
    settings = Settings.from_environment()
    found = dead_letters.dead_letters(queue, n, settings)
    if json:
        for letter in found:
            print_json({"id": letter.id, "job": letter.job, "reason": letter.reason,
                        "attempts": letter.attempt, "origin": letter.origin,
                        "died": letter.dead_since, "replayed": letter.replayed,
                        "size": len(letter.body), "traceback": letter.traceback})  # fmt: skip
        return
    if not found:
        print_message(f"no dead letters of {queue}")
        return
    total = job_queue.depth(Queue(queue).dead, settings).messages if len(found) == n else n
    place = f" of {queue}" + (f", the first of {total:,}" if total > n else "")
    examples = _print_each(found, place) if each else _print_kinds(found, place, queue)
    for letter in examples if traceback else []:
        lines = [safe(line) for line in (letter.traceback or "no traceback").splitlines()]
        out().print(f"\n{letter.short_id}", *lines, sep="\n", markup=False)


def _print_each(found: Messages, place: str) -> Sequence[Message]:
    """Print a line for each dead letter; return them all."""
    now = clock.time()
    rows = (
        (each.id[:8], each.attempt, age(now - each.dead_since) if each.dead_since else "–",
         size(len(each.body)), each.reason or NO_REASON)
        for each in found
    )  # fmt: skip
    title = counted(len(found), "dead letter") + place
    print_table(("id", "attempts", "age", "size", "reason"), rows, title, prose=["reason"])
    return found


def _print_kinds(found: Messages, place: str, queue: str) -> Sequence[Message]:
    """Print a line for each kind of error; return an example of each."""
    console = out()
    width = console.width if console.is_terminal else None
    table = shown_kinds(found, clock.time(), place).without("share")
    console.print(Text(table.text(width)))
    print_message(
        f"next: mousetrap dead list {queue} --each, or --traceback; "
        f"mousetrap peek {queue}.dead; mousetrap dead replay {queue}",
        is_folded=False,
    )
    return [found[kind.members[0]] for kind in kinds_of(found)[:MAX_KINDS]]


@app.command(short_help="Send dead letters back to their queue.")
def replay(
    queue: Name,
    limit: Annotated[int | None, typer.Option(min=1, help="The highest number to replay.")] = None,
    id: Annotated[
        list[str] | None,
        typer.Option(
            "--id", help="Only the dead letter with this id (or beginning of it); repeatable."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Send dead letters back to QUEUE, as first attempts, with their ids.

    Example: mousetrap dead replay start_fetch --limit 10
    """
    replayed = 0
    settings = Settings.from_environment()
    with postponed():  # the number is printed whole, and is that of the copies sent
        try:
            with ProgressDisplay(f"replaying to {queue}", limit) as display:

                def on_replayed(_: object) -> None:
                    nonlocal replayed
                    replayed += 1
                    display.advance(replayed)

                dead_letters.replay(
                    queue, limit=limit, ids=id or None, settings=settings, on_replayed=on_replayed
                )
        finally:  # also after an interrupt: these are back in their queue
            if json:
                print_json({"replayed": replayed})
            else:
                print_message(f"{replayed:,} replayed to {queue}")
    if id and not replayed:
        print_error(f"no dead letter of {queue} has that id: mousetrap dead list {queue}")
        raise typer.Exit(ExitCode.FAILED)


@app.command(short_help="Delete the dead letters of QUEUE for good.")
def purge(
    queue: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete the dead letters of QUEUE for good.

    Example: mousetrap dead purge start_fetch --yes
    """
    settings = Settings.from_environment()
    name = Queue(queue).dead
    count = job_queue.depth(name, settings).messages
    if not yes:
        if not err().is_terminal:
            print_error("this is no terminal, so the question cannot be asked: give --yes")
            raise typer.Exit(ExitCode.USAGE)
        if not typer.confirm(f"Delete {counted(count, 'message')} of {safe(name)}?", err=True):
            print_message("nothing was deleted")
            raise typer.Exit(ExitCode.FAILED)
    with postponed():
        print_message(f"{job_queue.purge(name, settings):,} deleted")
