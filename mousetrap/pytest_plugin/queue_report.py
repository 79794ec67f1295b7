"""The queue picture in a failure's report: what waits where, who takes it, who died of what.

Never a body. The queues are those that mousetrap declared (see `mousetrap.amqp.declared_queues`).
"""

from __future__ import annotations

from collections.abc import Iterator

from mousetrap.amqp.queue_depth import Depth
from mousetrap.check.safe_text import plain_text
from mousetrap.display.safe_text import safe
from mousetrap.errors import MousetrapError
from mousetrap.job_queue import depths, peek
from mousetrap.model.message import Message
from mousetrap.settings import Settings

MAX_QUEUES = 40  # shown at most; the empty ones are left out first
MAX_MESSAGES = 5  # messages named per queue


def describe_queues(names: list[str], settings: Settings, where: str) -> str:
    """Describe the queues *names* (as the broker knows them); says so when it cannot be asked."""
    if not names:
        return f"{where}\nmousetrap declared no queue here (those of plain pika are not known)"
    try:
        return "\n".join([where, *_lines(names, settings)])
    except MousetrapError as error:
        return f"{where}\nthe broker could not be asked: {plain_text(str(error))}"


def _lines(names: list[str], settings: Settings) -> Iterator[str]:
    on_the_wire = settings.replace(namespace="")
    found = dict(zip(names, depths(names, on_the_wire), strict=True))
    there = [each for each in found.values() if each]
    shown = sorted(there, key=lambda each: each.messages + each.consumers == 0)[:MAX_QUEUES]
    shown.sort(key=lambda each: names.index(each.queue))
    plain_name = settings.topology.plain_name
    width = max((len(safe(plain_name(each.queue))) for each in shown), default=5)

    yield f"{'queue':<{width}}  {'messages':>8}  consumers"
    for each in shown:
        name = safe(plain_name(each.queue))
        yield f"{name:<{width}}  {each.messages:>8,}  {each.consumers:>9,}"
    if len(there) > len(shown):
        yield f"and {len(there) - len(shown)} more"
    if gone := [safe(plain_name(name)) for name, depth in found.items() if depth is None]:
        yield f"deleted: {', '.join(gone[:MAX_QUEUES])}"
    for each in shown:
        # a look disturbs (the broker marks what was seen), so only where nobody else is
        if each.messages and each.queue.startswith(settings.namespace):
            yield from _messages(each, on_the_wire, safe(plain_name(each.queue)))


def _messages(queue: Depth, settings: Settings, name: str) -> Iterator[str]:
    messages = peek(queue.queue, MAX_MESSAGES, settings)
    if messages:
        which = "all" if len(messages) >= queue.messages else f"the first {len(messages)}"
        yield f"in {name}, {which} of {queue.messages:,}:"
    yield from map(_line, messages)


def _line(message: Message) -> str:
    line = f"  {safe(message.id[:8])}  attempt {message.attempt}, {len(message.body):,} bytes"
    if message.reason:
        line += f", died of {safe(plain_text(message.reason, 3).replace(chr(10), ' '), 300)}"
    return line
