"""A channel to the job queues, and functions that read, fill or empty a queue once.

`open_channel` is the tutorial's function: it declares `QUEUES` and returns a channel with pika's
blocking methods. The other functions open such a channel for one request and close it; each returns
or raises within its *timeout*, also if the broker is silent. To consume continuously, use a worker;
to send many messages, a publisher. Prototyped in ``notebooks/01_channel.ipynb``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager

from mousetrap.amqp import new_queues, redeliveries
from mousetrap.amqp.bindings import declare_bindings
from mousetrap.amqp.blocking_channel import JobChannel, connect
from mousetrap.amqp.blocking_declaring import declare_all, exclusive_queue, lacks_quorum_queue
from mousetrap.amqp.error_translation import translated
from mousetrap.amqp.queue_depth import Depth, QueueDepthReader, is_not_needed_yet
from mousetrap.amqp.queue_reader import MAX_SINGLE_GETS, get, requeue, take
from mousetrap.display.formats import counted
from mousetrap.errors import BrokerUnreachable, ChannelLost, QueueMissing
from mousetrap.model.message import Message
from mousetrap.model.message_list import Messages
from mousetrap.model.topology import Declaration, Queue
from mousetrap.runtime import clock, randomness
from mousetrap.runtime.postponed_interrupts import postponed
from mousetrap.settings import Settings

QUEUES = ["start_fetch", "data_processing"]
MAX_DRAIN_PREFETCH = 1000  # unacked messages of `drain` at a time; a guess
ANSWERS_TIMEOUT = 30.0  # seconds for a request, from opening the connection to the last answer
UNTAKEN_TIME = 1.0  # seconds at the end of `drain` to return what it prefetched and did not take
# seconds after the timeout of `drain` or `delete_unused` for the answer to the last request
DRAIN_GRACE, DELETE_GRACE = 0.25, 0.5
PEEK_NOTE = (
    "The messages are back in the queue, marked as redelivered; a consumer that runs now may "
    "receive them in another order."
)


def open_channel(settings: Settings | None = None) -> JobChannel:
    """Open a connection and a channel, declare `QUEUES` durable, and return the channel.

    Raises:
        BrokerUnreachable, AccessRefused: the text names the variable to check.
        TopologyMismatch: one of the queues exists with other arguments.
        QueueMissing: some do not exist, and may not be declared.
    """
    settings = settings or Settings.from_environment()
    channel = connect(settings, "channel")
    try:
        with translated(settings):
            declare_all(channel, map(settings.topology.work_queue, QUEUES), settings)
    except BaseException:
        channel.close()
        raise
    return channel


def declare(
    *queues: Queue | str, settings: Settings | None = None, timeout: float = ANSWERS_TIMEOUT
) -> None:
    """Declare queues: a `Queue` with its retry, dead and quarantine queues, a name as one queue.

    A `Queue` is bound as it says; an exchange that is missing is declared. A worker declares its
    retry queues and its dead queue itself, when it first needs them.

    If a quorum queue is new, this takes two seconds more: RabbitMQ confirms messages that it would
    forget with that queue if it were killed in the first second (see `mousetrap.amqp.new_queues`).

    Raises:
        TopologyMismatch: one exists with other arguments; the text names the argument.
        QueueMissing: some do not exist, and may not be declared (see `Settings.declare`).
        BrokerUnreachable, ConnectionLost: the broker did not answer within *timeout* seconds.
    """
    settings = settings or Settings.from_environment()
    needed = [each for queue in queues for each in _declarations(queue, settings)]
    with short_channel(settings, timeout) as channel:
        is_new = lacks_quorum_queue(channel, needed)
        declare_all(channel, needed, settings)
    bindings = [e for q in queues if isinstance(q, Queue) for e in settings.topology.bindings(q)]
    declare_bindings(bindings, settings, timeout)
    if is_new:
        clock.sleep(new_queues.NEW_QUEUE_TIME)


def depth(
    queue: str, settings: Settings | None = None, *, timeout: float = ANSWERS_TIMEOUT
) -> Depth:
    """Return how many messages are ready in *queue*, and how many consumers it has.

    A retry queue or dead queue that no message has needed yet is empty.

    Raises:
        QueueMissing: there is no such queue.
        BrokerUnreachable, ConnectionLost: the broker did not answer within *timeout* seconds.
    """
    settings = settings or Settings.from_environment()
    deadline = clock.monotonic() + timeout
    [answer] = depths([queue], settings, timeout=timeout)
    if answer is None and is_not_needed_yet(queue, settings, clock.remaining(deadline)):
        return Depth(queue, 0, 0)
    if answer is None:
        raise QueueMissing(f"there is no queue {queue!r}; declare it (mousetrap.job_queue.declare)")
    return answer


def depths(
    queues: Iterable[str], settings: Settings | None = None, *, timeout: float = ANSWERS_TIMEOUT
) -> list[Depth | None]:
    """Return the depth of each queue, read over one connection; None for a missing queue.

    Retry queues and dead queues are missing until a message needs them.

    Raises:
        BrokerUnreachable, ConnectionLost: the broker did not answer within *timeout* seconds.
    """
    reader = QueueDepthReader(settings or Settings.from_environment(), "question")
    with postponed():
        try:
            found = reader.read(names := list(queues), timeout)
        finally:
            reader.close()
    return [found[name] for name in names]


def peek(
    queue: str,
    n: int = 10,
    settings: Settings | None = None,
    *,
    timeout: float = ANSWERS_TIMEOUT,
) -> Messages:
    """Return up to *n* messages from the head of *queue*, and leave them in the queue.

    The queue is not quite unchanged afterwards: the broker marks the messages as redelivered, and a
    message may change places with one that is delivered at the same moment. A retry queue or dead
    queue that no message has needed yet is empty.

    Raises:
        QueueMissing: there is no such queue.
        BrokerUnreachable, ConnectionLost: the broker did not answer within *timeout* seconds; the
            messages are in the queue.
    """
    settings = settings or Settings.from_environment()
    name = settings.topology.wire_name(queue)
    deadline = clock.monotonic() + timeout
    if is_not_needed_yet(queue, settings, timeout):
        return Messages([], f" at the head of {queue}")
    with short_channel(settings, clock.remaining(deadline)) as channel:
        found = get(channel, name, n)
        messages = [Message.from_wire(body, properties) for _, properties, body in found]
        redeliveries.remember(name, [redeliveries.Held(m.id, m.losses) for m in messages])
        requeue(channel, queue, found, settings, clock.remaining(deadline) / 2)
    return Messages(messages, f" at the head of {queue}", PEEK_NOTE)


def drain(
    queue: str,
    n: int | None = None,
    *,
    idle: float = 0.0,
    timeout: float = 30.0,
    settings: Settings | None = None,
    on_message: Callable[[Message], object] | None = None,
) -> Messages:
    """Take messages out of *queue* and return them; ends after *timeout* seconds at the latest.

    Ends earlier after *n* messages, or when none arrived for *idle* seconds (0: as soon as the
    queue is empty). With *n* and without *idle* it waits for all *n* until the timeout.

    A message is acked once it is in the list (and *on_message* has returned, if given). If an
    exception interrupts, the message goes back to the queue, and the messages that were taken
    before are in ``taken`` of the exception. Never more messages are prefetched than are in the
    queue and wanted: other consumers can have the rest. A retry queue or dead queue that no message
    has needed yet is empty.

    Raises:
        QueueMissing: there is no such queue.
        BrokerUnreachable, ConnectionLost: the broker did not answer, so it is not known what the
            queue holds. Acks under way may be lost: then messages in ``taken`` are delivered again.
        KeyboardInterrupt: between two messages, or within half a second if the broker is silent.
    """
    settings = settings or Settings.from_environment()
    name, taken = settings.topology.wire_name(queue), list[Message]()
    idle_timeout = timeout if n is not None and not idle else idle
    last, ready = clock.monotonic(), 1  # one may be ready
    stop = deadline = last + timeout
    if is_not_needed_yet(queue, settings, timeout + DRAIN_GRACE, last + idle_timeout):
        return Messages(taken, f" out of {queue}")
    with (
        _attached_to_errors(taken, queue),
        postponed() as interrupts,
        short_channel(settings, clock.remaining(deadline) + DRAIN_GRACE) as channel,
    ):
        while (n is None or len(taken) < n) and clock.monotonic() < stop:
            wanted = MAX_DRAIN_PREFETCH if n is None else n - len(taken)
            limit = min(ready or 1, wanted, MAX_DRAIN_PREFETCH)
            before, ready = len(taken), 0
            stop = deadline - (min(UNTAKEN_TIME, timeout / 4) if limit > MAX_SINGLE_GETS else 0.0)
            with closing(take(channel, name, limit, stop)) as found:
                for message, left in found:
                    interrupts.deliver()  # here no message is taken and not acked
                    if on_message is not None:
                        with interrupts.allowed():
                            on_message(message)
                    taken.append(message)
                    last, ready = clock.monotonic(), left
            interrupts.deliver()
            if len(taken) == before:
                quiet = clock.monotonic() - last
                if quiet >= idle_timeout:
                    break
                # basic.get cannot wait, and a consumer could prefetch messages of other consumers
                channel.connection.process_data_events(min(0.02, idle_timeout - quiet))
    return Messages(taken, f" out of {queue}")


@contextmanager
def _attached_to_errors(taken: list[Message], queue: str) -> Iterator[None]:
    """Attach the messages that were *taken* to an exception: the broker does not have them."""
    try:
        yield
    except BaseException as error:
        if taken:
            vars(error)["taken"] = Messages(taken, f" out of {queue}")
            error.add_note(
                f"taken out of {queue} before this: {counted(len(taken), 'message')}, in `taken` "
                f"of this exception (in a notebook: sys.last_value.taken)"
            )
        raise


def purge(queue: str, settings: Settings | None = None, *, timeout: float = ANSWERS_TIMEOUT) -> int:
    """Delete the messages that are ready in *queue*; return how many.

    Raises:
        QueueMissing: there is no such queue.
        BrokerUnreachable, ConnectionLost: the broker did not answer within *timeout* seconds. It
            may delete the messages when it goes on: the request was perhaps sent.
    """
    settings = settings or Settings.from_environment()
    deadline = clock.monotonic() + timeout
    if is_not_needed_yet(queue, settings, timeout):
        return 0
    with short_channel(settings, clock.remaining(deadline)) as channel:
        answer = channel.queue_purge(settings.topology.wire_name(queue))
        return int(answer.method.message_count)


def delete(
    *queues: Queue | str, settings: Settings | None = None, timeout: float = ANSWERS_TIMEOUT
) -> None:
    """Delete queues with their messages; a queue that does not exist is no error.

    A `Queue` is deleted with its retry, dead and quarantine queues. What waits in a delay queue
    stays there until the queue is declared again.

    Raises:
        BrokerUnreachable, ConnectionLost: the broker did not answer within *timeout* seconds.
    """
    settings = settings or Settings.from_environment()
    names = [
        settings.topology.wire_name(name) for queue in queues
        for name in ([queue] if isinstance(queue, str) else queue.possible_names())
    ]  # fmt: skip
    with short_channel(settings, timeout) as channel:
        channel.delete_queues(names)


def delete_unused(
    wire_names: Iterable[str], settings: Settings, *, timeout: float = 15.0
) -> list[str]:
    """Delete queues by their names on the wire, and return the names of those that existed.

    Waits until a queue has no consumers: a worker would declare its queue again.

    Raises:
        TimeoutError: a queue still has consumers after *timeout* seconds; the text names it.
        BrokerUnreachable, ConnectionLost: the broker did not answer in that time.
            ``deleted`` of each exception has the names of those that were deleted before.
    """
    deadline = clock.monotonic() + timeout
    end = deadline + DELETE_GRACE
    bare = settings.replace(namespace="")
    deleted: list[str] = []
    try:
        for name in wire_names:
            while True:
                [found] = depths([name], bare, timeout=clock.remaining(end))
                if found is None or not found.consumers:
                    break
                if not clock.remaining(deadline):
                    raise TimeoutError(
                        f"queue {name!r} still has {counted(found.consumers, 'consumer')} after "
                        f"{timeout:g} s: stop them first"
                    )
                clock.sleep(0.1)
            if found is not None:
                with short_channel(bare, clock.remaining(end)) as channel:
                    channel.queue_delete(name)
                deleted.append(name)
    except BaseException as error:
        vars(error)["deleted"] = deleted
        raise
    return deleted


def ping(settings: Settings | None = None, timeout: float = 3.0) -> float:
    """Send a message through the broker and receive it; return the seconds that this took.

    This proves that the broker is ready; an open port or a greeting does not. The queue is
    exclusive and is deleted with the connection. Where the user may not declare one, the broker's
    refusal has to suffice.

    Raises:
        BrokerUnreachable, AccessRefused: the text names the variable to check.
        ConnectionLost: the broker stopped answering; *timeout* limits the whole call.
    """
    settings = (settings or Settings.from_environment()).replace(connect_timeout=timeout)
    started = clock.monotonic()
    with short_channel(settings, timeout) as channel:
        if not (name := exclusive_queue(channel)):
            return clock.monotonic() - started
        token = randomness.urandom(16)
        channel.basic_publish("", name, token)
        while clock.remaining(started + timeout):
            _, _, body = channel.basic_get(name, auto_ack=True)
            if body == token:
                return clock.monotonic() - started
    raise BrokerUnreachable(
        f"{settings.url} accepted a message and did not deliver it within {timeout:g} s: wait, or "
        f"look at the broker's log"
    )


@contextmanager
def short_channel(settings: Settings, timeout: float | None = None) -> Iterator[JobChannel]:
    """Open a channel for a few requests, which take *timeout* seconds together at the most.

    Interrupts are postponed, because pika could not go on after one.
    """
    deadline = None if timeout is None else clock.monotonic() + timeout
    with (
        postponed(),
        connect(settings, "question", deadline) as channel,
        translated(settings),
        channel.limited(deadline),
    ):
        yield channel


def take_one(queue: str, settings: Settings) -> bytes:
    """Take one message from the queue with this name on the wire; return b"" if there is none.

    Raises:
        QueueMissing: there is no such queue, or a queue of that name is not allowed.
        BrokerUnreachable, ConnectionLost: the broker did not answer in `ANSWERS_TIMEOUT`.
    """
    try:
        with short_channel(settings, ANSWERS_TIMEOUT) as channel:
            _, _, body = channel.basic_get(queue, auto_ack=True)
    except ChannelLost as error:
        raise QueueMissing(f"no message can be taken from {queue!r}: {error}") from error
    return body or b""


def _declarations(queue: Queue | str, settings: Settings) -> list[Declaration]:
    topology = settings.topology
    if isinstance(queue, str):
        return [topology.work_queue(queue)]
    return [*topology.declarations(queue), *topology.failure_queues(queue)]
