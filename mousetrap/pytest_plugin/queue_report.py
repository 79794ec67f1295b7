"""The section "queues" in the report of a failure: messages, consumers, reasons of failures.

It never contains a body. The queues are those that mousetrap has declared
(`mousetrap.amqp.declared_queues`).
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

MAX_QUEUES = 40  # queues in the report; empty ones are left out first
MAX_MESSAGES = 5  # messages listed per queue


def describe_queues(names: list[str], settings: Settings, where: str) -> str:
    """Describe the queues with these full *names*; if the broker does not answer, say why."""
    if not names:
        return f"{where}\nmousetrap has declared no queue here (those of plain pika are not known)"
    try:
        return "\n".join([where, *_lines(names, settings)])
    except MousetrapError as error:
        return f"{where}\nthe broker could not be queried: {plain_text(str(error))}"


def _lines(names: list[str], settings: Settings) -> Iterator[str]:
    full_names = settings.replace(namespace="")
    found = dict(zip(names, depths(names, full_names), strict=True))
    existing = [each for each in found.values() if each]
    selected = sorted(existing, key=lambda each: each.messages + each.consumers == 0)[:MAX_QUEUES]
    selected.sort(key=lambda each: names.index(each.queue))
    plain_name = settings.topology.plain_name
    width = max((len(safe(plain_name(each.queue))) for each in selected), default=5)

    yield f"{'queue':<{width}}  {'messages':>8}  consumers"
    for each in selected:
        name = safe(plain_name(each.queue))
        yield f"{name:<{width}}  {each.messages:>8,}  {each.consumers:>9,}"
    if len(existing) > len(selected):
        yield f"and {len(existing) - len(selected)} more"
    if deleted := [safe(plain_name(name)) for name, depth in found.items() if depth is None]:
        yield f"deleted: {', '.join(deleted[:MAX_QUEUES])}"
    for each in selected:
        # Peeking marks messages as redelivered, so only in queues of this test's namespace.
        if each.messages and each.queue.startswith(settings.namespace):
            yield from _messages(each, full_names, safe(plain_name(each.queue)))


def _messages(queue: Depth, settings: Settings, name: str) -> Iterator[str]:
    messages = peek(queue.queue, MAX_MESSAGES, settings)
    if messages:
        which = "all" if len(messages) >= queue.messages else f"the first {len(messages)}"
        yield f"in {name}, {which} of {queue.messages:,}:"
    yield from map(_line, messages)


def _line(message: Message) -> str:
    line = f"  {safe(message.id[:8])}  attempt {message.attempt}, {len(message.body):,} bytes"
    if message.reason:
        line += f", failed with {safe(plain_text(message.reason, 3).replace(chr(10), ' '), 300)}"
    return line
