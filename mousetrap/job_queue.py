"""A channel to the job queues, and the short questions one asks of a queue.

`open_channel` is what the tutorial wrote: it declares `QUEUES` and returns a channel with pika's
blocking methods. The rest opens such a channel for the moment it needs one. Consuming for good is
the worker's business, sending many messages the publisher's. Prototyped in
``notebooks/01_channel.ipynb``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any, TypeAlias

from mousetrap.amqp import redeliveries
from mousetrap.amqp.blocking_channel import JobChannel, connect
from mousetrap.amqp.declared_queues import note
from mousetrap.amqp.error_translation import translated
from mousetrap.amqp.properties import is_near_delivery_limit, kept_properties
from mousetrap.amqp.publisher import Publisher
from mousetrap.amqp.queue_depth import Depth, QueueDepthReader
from mousetrap.errors import BrokerUnreachable, ChannelLost, QueueMissing
from mousetrap.model.message import Message, without_delivery_counts
from mousetrap.model.message_list import Messages
from mousetrap.model.topology import Declaration, Queue
from mousetrap.runtime import clock, randomness
from mousetrap.settings import Settings

QUEUES = ["start_fetch", "data_processing"]
FEW = 10  # messages; so few are got one by one
BULK = 1000  # messages that are on their way to `drain` at a time; a guess
PATIENCE = 3.0  # seconds for the confirms of what is published anew
IDLE = 0.5  # seconds without a message after which those that were there are gone; a guess
PEEKED = (
    "Given back: the broker marks them as redelivered, and who consumes just now may see another "
    "order."
)

Got: TypeAlias = tuple[Any, Any, bytes]  # method, properties and body, as pika has them


def open_channel(settings: Settings | None = None) -> JobChannel:
    """Open a connection and a channel, declare `QUEUES` durable, and return the channel.

    Raises:
        BrokerUnreachable, AccessRefused: with the variable to check.
        TopologyMismatch: one of the queues exists with other arguments.
    """
    settings = settings or Settings.from_environment()
    channel = connect(settings, "channel")
    try:
        with translated(settings):
            for name in QUEUES:
                _declare(channel, settings.topology.work_queue(name))
    except BaseException:
        channel.close()
        raise
    return channel


def declare(*queues: Queue | str, settings: Settings | None = None) -> None:
    """Declare queues; a `Queue` with its retry and dead queues, a name just so.

    Raises:
        TopologyMismatch: one exists with other arguments; says which argument.
    """
    settings = settings or Settings.from_environment()
    with short_channel(settings) as channel:
        for queue in queues:
            for declaration in _declarations(queue, settings):
                _declare(channel, declaration)


def depth(queue: str, settings: Settings | None = None) -> Depth:
    """Ask how many messages are ready in *queue*, and how many consumers it has.

    Raises:
        QueueMissing: there is no such queue.
    """
    [answer] = depths([queue], settings)
    if answer is None:
        raise QueueMissing(f"there is no queue {queue!r}; declare it (mousetrap.job_queue.declare)")
    return answer


def depths(queues: Iterable[str], settings: Settings | None = None) -> list[Depth | None]:
    """Ask for many queues over one connection; None where there is no such queue."""
    gauge = QueueDepthReader(settings or Settings.from_environment(), "question")
    try:
        found = gauge.read(names := list(queues))
    finally:
        gauge.close()
    return [found[name] for name in names]


def peek(queue: str, n: int = 10, settings: Settings | None = None) -> Messages:
    """Look at up to *n* messages and give them back.

    Not free of traces, as the table says: the broker marks them as redelivered, and a message may
    change places with another that is delivered at the same moment.
    """
    settings = settings or Settings.from_environment()
    name = settings.topology.wire_name(queue)
    with short_channel(settings) as channel:
        found = _get(channel, name, n)
        messages = [Message.from_wire(body, properties) for _, properties, body in found]
        redeliveries.remember(name, [(message.id, False) for message in messages])
        requeue(channel, queue, found, settings)
    return Messages(messages, f" at the head of {queue}", PEEKED)


def drain(
    queue: str,
    n: int | None = None,
    *,
    idle: float = 0.0,
    timeout: float = 30.0,
    settings: Settings | None = None,
    on_message: Callable[[Message], object] | None = None,
) -> Messages:
    """Take messages out of *queue* and return them, a list that shows itself; always ends.

    Ends after *n* messages, or when nothing came for *idle* seconds (0: as soon as the queue is
    empty), or after *timeout* seconds. With *n* and no *idle* it waits for all *n* until the
    timeout. A message is acked once it is in the list (after *on_message* returned, if given),
    so what an exception interrupts goes back to the queue; what was in the list by then is in the
    ``taken`` of the exception. No more are on their way at a time than there are and are wanted:
    what others may want stays.
    """
    settings = settings or Settings.from_environment()
    name = settings.topology.wire_name(queue)
    taken: list[Message] = []
    now = clock.monotonic()
    deadline, last = now + timeout, now
    patience = timeout if n is not None and not idle else idle
    ready = 1  # as far as is known, or one to be asked for
    with _not_lost(taken, queue), short_channel(settings) as channel:
        while (n is None or len(taken) < n) and clock.monotonic() < deadline:
            most = min(ready or 1, BULK if n is None else n - len(taken), BULK)
            before, ready = len(taken), 0
            with closing(_take(channel, name, most, deadline)) as found:
                for message, left in found:
                    if on_message is not None:
                        on_message(message)
                    taken.append(message)
                    last, ready = clock.monotonic(), left
            if len(taken) == before:
                quiet = clock.monotonic() - last
                if quiet >= patience:
                    break
                # basic.get cannot wait, a consumer would prefetch what others may want
                pause = min(0.02, patience - quiet, clock.remaining(deadline))
                channel.connection.process_data_events(pause)
    return Messages(taken, f" out of {queue}")


@contextmanager
def _not_lost(taken: list[Message], queue: str) -> Iterator[None]:
    """Let an exception carry what was *taken*: the broker does not have it any more."""
    try:
        yield
    except BaseException as error:
        if taken:
            vars(error)["taken"] = Messages(taken, f" out of {queue}")
            error.add_note(
                f"{len(taken):,} messages had been taken out of {queue} by then: they are in "
                f"`taken` of this exception (in a notebook: sys.last_value.taken)"
            )
        raise


def purge(queue: str, settings: Settings | None = None) -> int:
    """Throw away the messages that are ready in *queue*; return how many."""
    settings = settings or Settings.from_environment()
    with short_channel(settings) as channel:
        answer = channel.queue_purge(settings.topology.wire_name(queue))
        return int(answer.method.message_count)


def delete(*queues: Queue | str, settings: Settings | None = None) -> None:
    """Delete queues with whatever is in them; those that do not exist are no error."""
    settings = settings or Settings.from_environment()
    with short_channel(settings) as channel:
        for queue in queues:
            for declaration in _declarations(queue, settings):
                channel.queue_delete(declaration.name)


def delete_unused(
    wire_names: Iterable[str], settings: Settings, *, timeout: float = 15.0
) -> list[str]:
    """Delete those queues, by their names on the wire, and return the ones that existed.

    Waits until nobody consumes them any more: a worker would declare its queue again.

    Raises:
        TimeoutError: one still has consumers after *timeout* seconds; names it.
    """
    deadline = clock.monotonic() + timeout
    bare = settings.replace(namespace="")
    deleted = []
    for name in wire_names:
        while (found := depths([name], bare)[0]) is not None and found.consumers:
            if not clock.remaining(deadline):
                raise TimeoutError(
                    f"queue {name!r} still has {found.consumers} consumers after {timeout:g} s: "
                    f"stop them first"
                )
            clock.sleep(0.1)
        if found is not None:
            with short_channel(bare) as channel:
                channel.queue_delete(name)
            deleted.append(name)
    return deleted


def ping(settings: Settings | None = None, timeout: float = 3.0) -> float:
    """Send a message through the broker and get it back; return the seconds it took.

    The proof that a broker is ready: an open port or a greeting is not. Uses an exclusive queue
    that vanishes with the connection.

    Raises:
        BrokerUnreachable, AccessRefused: with the variable to check.
    """
    settings = (settings or Settings.from_environment()).replace(connect_timeout=timeout)
    started = clock.monotonic()
    with short_channel(settings) as channel:
        name = str(channel.queue_declare("", exclusive=True).method.queue)
        token = randomness.urandom(16)
        channel.basic_publish("", name, token)
        while clock.remaining(started + timeout):
            _, _, body = channel.basic_get(name, auto_ack=True)
            if body == token:
                return clock.monotonic() - started
    raise BrokerUnreachable(
        f"{settings.url} took a message and did not give it back in {timeout:g} s"
    )


@contextmanager
def short_channel(settings: Settings) -> Iterator[JobChannel]:
    """Open a channel for a question or two; pika's errors come out as ours."""
    with connect(settings, "question") as channel, translated(settings):
        yield channel


def take_one(queue: str, settings: Settings) -> bytes:
    """Take one message from the queue of this name on the wire; empty if there is none.

    Raises:
        QueueMissing: there is no such queue, or nobody may declare one of that name.
    """
    with connect(settings, "question") as channel:
        try:
            with translated(settings):
                _, _, body = channel.basic_get(queue, auto_ack=True)
        except ChannelLost as error:
            raise QueueMissing(f"{queue!r} cannot be got from: {error}") from error
    return body or b""


def requeue(channel: JobChannel, queue: str, got: Sequence[Got], settings: Settings) -> None:
    """Return what was *got* from *queue* to it, in its order.

    What a quorum queue would throw away after a few more looks is published anew, behind the
    others: before RabbitMQ 4.3 it counts each look as a failure; at the 21st the message is gone
    (measured). If that is not confirmed within `PATIENCE`, it is given back like the rest.
    """
    staying = got
    if worn := [each for each in got if is_near_delivery_limit(each[1])]:
        moved = _published_anew(worn, queue, settings)
        for tag in moved:
            channel.basic_ack(tag)
        staying = [each for each in got if each[0].delivery_tag not in moved]
    if staying:
        # Closing the channel would do it as well, but that counts on 4.3, too.
        channel.basic_nack(staying[-1][0].delivery_tag, multiple=True, requeue=True)


def _published_anew(worn: Sequence[Got], queue: str, settings: Settings) -> set[int]:
    """Publish copies of *worn* to *queue*; return the tags of those that the broker confirmed."""
    with Publisher(settings, "gives back") as publisher:
        receipts = {}
        for method, properties, body in worn:
            message = Message.from_wire(body, properties)
            copy = message.copy(message.attempt, without_delivery_counts(message.headers))
            receipts[method.delivery_tag] = publisher.publish(
                copy, queue, properties=kept_properties(properties)
            )
        with suppress(TimeoutError):  # an alarm, or a broker that went away: they stay
            publisher.flush(PATIENCE)
        return {tag for tag, receipt in receipts.items() if receipt.confirmed}


def _declare(channel: JobChannel, declaration: Declaration) -> None:
    note(declaration.name)
    channel.queue_declare(
        declaration.name, durable=True, arguments=dict(declaration.arguments) or None
    )


def _declarations(queue: Queue | str, settings: Settings) -> list[Declaration]:
    topology = settings.topology
    return [topology.work_queue(queue)] if isinstance(queue, str) else topology.declarations(queue)


def _take(
    channel: JobChannel, name: str, most: int, deadline: float
) -> Generator[tuple[Message, int], None, None]:
    """Yield up to *most* messages, which are there, and how many are left, as far as is known.

    Each is acked when the next is asked for; who closes this earlier gives back the latest.
    """
    if most <= FEW:
        for _ in range(most):
            method, properties, body = channel.basic_get(name)
            if method is None:
                return
            yield Message.from_wire(body, properties), method.message_count
            channel.basic_ack(method.delivery_tag)
        return
    tag = 0  # up to this one they are taken
    channel.basic_qos(prefetch_count=most)  # acked all at once: so no more than these come
    try:
        for method, properties, body in channel.consume(name, inactivity_timeout=IDLE):
            if method is None:  # somebody else has taken the rest
                break
            most -= 1
            yield Message.from_wire(body, properties), most
            tag = method.delivery_tag
            if not most or clock.monotonic() > deadline:
                break
    except BaseException:  # nothing here may wait: it may be an interrupt, and the broker silent
        if tag:
            channel.basic_ack(tag, multiple=True)
        channel.basic_nack(0, multiple=True)
        raise
    if tag:
        channel.basic_ack(tag, multiple=True)
    channel.cancel()


def _get(channel: JobChannel, name: str, n: int) -> list[Got]:
    found: list[Got] = []
    while len(found) < n:
        method, properties, body = channel.basic_get(name)
        if method is None:
            break
        found.append((method, properties, body))
    return found
