"""Runs a function on the messages of a queue: take, handle, send on, tell, then ack.

The order is the promise: a source message is acked only after the broker has confirmed everything
that came of it, be it the outputs, the retry or the dead letter, and then its fate. So whatever
dies in between, the message comes again and its outputs have the same ids. Prototyped in
``notebooks/03_worker.ipynb``.
"""

from __future__ import annotations

import dataclasses
import logging
import random
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import pika

from mousetrap import retry
from mousetrap.consumer import Consumer, Delivery
from mousetrap.errors import MousetrapError, OutcomeUnknown
from mousetrap.events import Events, Told
from mousetrap.fate import Fate, Output
from mousetrap.handler import Handler
from mousetrap.handling import Handling
from mousetrap.hands import Coroutines, Hands, Threads
from mousetrap.interrupt import PARTING, Bell, finish
from mousetrap.loop import Loop
from mousetrap.message import Message, current
from mousetrap.presence import PATIENCE, Attached, Ear, here, note
from mousetrap.publisher import RESEND_DELAY, Publisher
from mousetrap.receipt import Receipt
from mousetrap.settings import Settings
from mousetrap.table import Table, safe
from mousetrap.topology import AnyDeclaration, Exchange, Queue
from mousetrap.translation import kept_properties, remaining

log = logging.getLogger("mousetrap.worker")

_started: weakref.WeakSet[Worker] = weakref.WeakSet()
GRACE = 10.0  # seconds for what is in hand when a worker is stopped
MOVING = 0.1  # seconds in which the broker has heard an ack that was sent; a guess
KEPT_FAILURES = 10  # each keeps its frames, and all that is in them, alive


@dataclass(frozen=True)
class Statistics:
    """What a worker has done so far; counts are messages since it started."""

    state: str  # connecting, open, blocked, failed, closed
    received: int  # deliveries, repeated ones too
    done: int  # handled, outputs confirmed
    retried: int  # failed and sent to a retry queue, confirmed
    dead: int  # failed and sent to the dead queue, confirmed
    in_hand: int  # taken and without a fate yet
    prefetched: int  # handed over by the broker and not begun
    reconnects: int
    alive: bool  # started, neither closed nor unable to go on
    connected: bool  # both connections are open, perhaps blocked by an alarm
    consuming: bool  # the broker hands over messages, and they are taken
    problem: str  # what it is waiting for, or the last thing that went wrong; "" when all is well


class Worker:
    """Runs *handler* on each message of *queue* and sends its results to the queue *writes*.

    *handler* is a plain function or coroutine function of one argument (see `handler`); it may
    raise `Reject` to bury a message at once; any other error is retried as ``queue.retry_delays``
    say and then buried. *concurrency* is how many messages are handled at a time; *prefetch* how
    many the broker may hand over beyond the acked ones (default: twice the concurrency, at least
    16, so that the next message is here when a hand is free). An ack takes a few milliseconds, and
    so many messages are on their way in that time: for handlers quicker than a millisecond 256 is
    three times as fast (measured), for slow ones it would keep messages from other workers.

    `around` is a context manager in which each message is handled, for who wants to keep something
    of it; set it before the start.

    Two connections: one consumes, one publishes, because a broker with a memory alarm stops
    reading from connections that publish, and acks must still get through. Both live on one I/O
    thread: what the one hears is what makes the other speak.

    Threads: every method from any thread; `stop` not from inside a handler.
    """

    def __init__(
        self,
        queue: Queue | str,
        handler: Callable[..., Any] | Handler,
        settings: Settings | None = None,
        *,
        writes: str | None = None,
        concurrency: int = 1,
        prefetch: int | None = None,
    ) -> None:
        if concurrency < 1 or (prefetch is not None and not 1 <= prefetch <= 65_535):
            raise ValueError("concurrency must be at least 1 and prefetch lie in 1..65535")
        self.queue = Queue(queue) if isinstance(queue, str) else queue
        self.handler = handler if isinstance(handler, Handler) else Handler(handler)
        self.settings = settings or Settings.from_environment()
        self.writes = writes
        self.concurrency = concurrency
        self.prefetch = prefetch or max(16, 2 * concurrency)
        self.error: MousetrapError | None = None  # why it stopped for good
        self.failures: deque[tuple[str, BaseException]] = deque(maxlen=KEPT_FAILURES)
        self.around: Callable[[Message], AbstractContextManager[object]] = nullcontext
        topology = self.settings.topology
        self._declarations: list[AnyDeclaration] = [*topology.declarations(self.queue)]
        if writes is not None:
            self._declarations.append(topology.work_queue(writes))
        loop = Loop(f"worker {self.queue.name}")
        self._consumer = Consumer(
            self.settings,
            topology.wire_name(self.queue.name),
            self.prefetch,
            self._declarations,
            on_delivery=self._on_delivery,
            on_failed=self.failed,
            one_by_one=topology.wire_name(self.queue.suspects),
            beside=lambda connection: self._ear.open(connection),
            loop=loop,
        )
        self._publisher = Publisher(
            self.settings, f"worker {self.queue.name} publishes", on_failed=self.failed, loop=loop
        )
        self._ear = Ear(self.settings, self._consumer.queue, self._publisher)
        self._ear.stage = self.handler.name
        self._publisher.declare(self._declarations)
        if topology.events_exchange:
            self._publisher.declare([Exchange(topology.events_exchange)])
        self._events = Events(self._publisher, self._settle)
        name = self.handler.name
        self._hands: Hands[Delivery] = (
            Coroutines(self._handle_async, concurrency, name, self._crashed)
            if self.handler.is_async
            else Threads(self._handle, concurrency, name, self._crashed)
        )
        self._changed = Bell()  # rings when a count changes, and when the worker ends
        self._lock = threading.Lock()  # guards what follows
        self._counts: dict[str, int] = dict.fromkeys(("received", "done", "retried", "dead"), 0)
        self._in_hand = 0
        self._moving: dict[str, Delivery] = {}  # not acked, and its copy is among the suspects
        self._problem = ""
        self._is_started = False
        self._stopping = False
        self._closing = threading.Lock()  # who stops it a second time waits for the first

    # ---- life ----------------------------------------------------------------------------------

    def start(self) -> Worker:
        """Connect and begin to consume; returns when the broker has accepted the consumer.

        Safe to call twice, so that ``with stage.start() as worker`` works.

        Raises:
            BrokerUnreachable, AccessRefused, TopologyMismatch: it did not start; nothing is left.
        """
        if self._is_started:
            return self
        self._is_started = True
        _started.add(self)
        try:
            self._publisher.open()
            self._hands.start()
            self._consumer.open()
            self._ear.is_deaf = False
            note(self.settings, self._consumer.queue, +1)
        except BaseException:
            _started.discard(self)
            # interrupted when it had just begun, it may have a message in hand: it is finished
            has_begun = self._consumer.connection.is_open
            finish((lambda: self._stop(GRACE)) if has_begun else self._abandon)
            raise
        return self

    def swap(self, handler: Callable[..., Any] | Handler) -> None:
        """Have *handler* take the messages from the next one on; those in hand end as they began.

        Raises:
            TypeError: it takes no message, or one of the two is a coroutine function and the
                other is not: that needs a new worker.
        """
        new = handler if isinstance(handler, Handler) else Handler(handler)
        if new.is_async is not self.handler.is_async:
            raise TypeError(
                f"{new.name} and {self.handler.name} are not both plain functions, nor both "
                f"coroutine functions: stop this worker and start another"
            )
        self.handler = new
        self._ear.stage = new.name

    def stop(self, timeout: float = GRACE) -> None:
        """Finish the messages in hand, then close; what was not begun goes back to its queue.

        An interrupt ends the waiting; the worker stops all the same.

        Raises:
            TimeoutError: a handler still ran, or the broker had not confirmed its outputs, after
                *timeout* seconds; that message will be delivered again, so it may be done twice.
        """
        finish(lambda: self._stop(timeout))

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the worker has stopped for good; say whether it has.

        Raises:
            MousetrapError: what stopped it.
        """
        self._changed.wait_for(lambda: self.error is not None or self._stopping, timeout)
        if self.error is not None:
            raise self.error
        return self._stopping

    def wait_until(self, *, timeout: float = 30.0, **counts: int) -> Statistics:
        """Wait until each named count is reached: ``worker.wait_until(done=10, dead=1)``.

        Raises:
            TimeoutError: not in *timeout* seconds; says how far it got.
            MousetrapError: the worker stopped for good.
        """
        reached = self._changed.wait_for(
            lambda: (
                self.error is not None
                or all(self._counts[name] >= number for name, number in counts.items())
            ),
            timeout,
        )
        if self.error is not None:
            raise self.error
        if not reached:
            raise TimeoutError(f"waited {timeout:g} s for {counts}; so far: {self.statistics()}")
        return self.statistics()

    def statistics(self) -> Statistics:
        """Count what has happened so far."""
        with self._lock:
            problem = str(self.error or "") or self._problem
            connection, other = self._consumer.connection, self._publisher.connection
            if connection.state not in ("open", "closed"):
                problem = problem or str(connection.error or connection.state)
            is_blocked = connection.is_open and other.state == "blocked"  # it is who publishes
            state = "failed" if self.error else "blocked" if is_blocked else connection.state
            alive = self._is_started and self.error is None and connection.state != "closed"
            connected = connection.is_open and other.is_open
            return Statistics(
                state=state,
                alive=alive,
                connected=connected,
                # open means that the broker has accepted the consumer
                consuming=alive and connected and not self._stopping,
                in_hand=self._in_hand,
                prefetched=max(0, self._consumer.unacked - self._in_hand),
                reconnects=connection.reconnects + other.reconnects,
                problem=problem,
                **self._counts,
            )

    def attached(self, patience: float = PATIENCE) -> Attached | None:
        """Say who consumes the queue; None if the broker does not answer in *patience* seconds.

        Takes a few milliseconds, or *patience* if somebody else consumes it and is silent.
        """
        consumers = self._consumer.count(patience)
        if consumers is None:
            return None
        ours = min(consumers, here(self.settings, self._consumer.queue))
        others = self._ear.ask(consumers - ours, patience) if consumers > ours else ()
        return Attached(consumers, ours, others[: consumers - ours])

    @property
    def is_stopping(self) -> bool:
        """It was told to stop, and has stopped or will have soon."""
        return self._stopping

    @property
    def unacked(self) -> int:
        """How many deliveries it holds, begun or not, that are not acked yet."""
        return self._consumer.unacked

    def __enter__(self) -> Worker:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _repr_html_(self) -> str:
        now = dataclasses.asdict(self.statistics())
        facts = [(name, value) for name, value in now.items() if value != ""]
        return Table(("worker", self.handler.name), [*self._way(), *facts])._repr_html_()

    def _way(self) -> list[tuple[str, str]]:
        return [("reads", self.queue.name), *([("writes", self.writes)] if self.writes else [])]

    def __repr__(self) -> str:
        now = self.statistics()
        way = f"{self.queue.name} → {self.handler.name}" + f" → {self.writes}" * bool(self.writes)
        counts = f"{now.done:,} done, {now.retried:,} retried, {now.dead:,} dead"
        return f"<Worker {safe(way)}: {now.state}, {counts}, {now.in_hand} in hand>"

    def _stop(self, timeout: float) -> None:
        with self._closing:
            self._finish(timeout)

    def _finish(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        self._stopping = True  # hands drop what they have not begun
        self._changed.ring()
        self._consumer.cancel()  # first: nothing new may arrive while we finish
        self._be_gone()
        finished = self._hands.stop(timeout)
        # before closing: an unconfirmed output is an unacked job
        finished &= self._changed.wait_for(
            # or its channel is gone: then it comes again whatever we wait for
            lambda: (
                self._in_hand == 0
                or self.error is not None
                or not self._consumer.connection.is_open
            ),
            remaining(deadline),
        )
        self._consumer.close(max(1.0, remaining(deadline)))
        self._publisher.close(max(1.0, remaining(deadline)))
        if not finished:
            raise TimeoutError(
                f"worker of {self.queue.name!r} still had {self._in_hand} messages in hand after "
                f"{timeout:g} s; they will be delivered again"
            )

    def _be_gone(self) -> None:
        """Not to be counted any more."""
        if not self._ear.is_deaf:
            self._ear.is_deaf = True
            note(self.settings, self._consumer.queue, -1)

    def _abandon(self) -> None:
        self._stopping = True
        self._consumer.close(PARTING)
        self._publisher.close(PARTING)
        self._hands.stop(PARTING)

    # ---- handling: on the hands ----------------------------------------------------------------

    def _handle(self, delivery: Delivery) -> None:
        if (handling := self._begin(delivery)) is None:
            return
        message, handler = handling.message, handling.handler
        with self.around(message):
            token = current.set(message)
            try:
                result = handler.function(*handler.arguments(message))
                outputs = handler.outputs(result, message)
            except BaseException as error:  # noqa: BLE001 -- sys.exit() in a handler is a failure
                self._handle_failure(handling, error)
            else:
                self._send(handling, outputs)
            finally:
                current.reset(token)

    async def _handle_async(self, delivery: Delivery) -> None:
        if (handling := self._begin(delivery)) is None:
            return
        message, handler = handling.message, handling.handler
        with self.around(message):
            token = current.set(message)
            try:
                result = await handler.function(*handler.arguments(message))
                outputs = handler.outputs(result, message)
            except BaseException as error:  # noqa: BLE001 -- as above
                self._handle_failure(handling, error)
            else:
                self._send(handling, outputs)
            finally:
                current.reset(token)

    def _begin(self, delivery: Delivery) -> Handling | None:
        properties = delivery.properties
        message = Message.from_wire(
            delivery.body, properties.message_id, properties.headers, properties.timestamp
        )
        with self._lock:
            if self._stopping or not self._consumer.is_current(delivery):
                return None  # the broker will deliver it again
            moved = self._moving.get(message.id)
            if moved is not None and self._consumer.is_current(moved):
                # begun now, it could kill us before that is acked, and there would be two of it
                self._consumer.connection.call_later(MOVING, lambda: self._hands.take(delivery))
                return None
            self._in_hand += 1
        handling = Handling(delivery, message, self.handler)
        if delivery.is_suspect or delivery.is_overdue:  # that is counted before it is begun
            self._move(handling)
            return None
        delivery.begun = handling.started
        return handling

    def _move(self, handling: Handling) -> None:
        delivery, message = handling.delivery, handling.message
        after = retry.after_timeout if delivery.is_overdue else retry.after_loss
        what_next = after(message, self.queue)
        if not isinstance(what_next, retry.Move):
            self._handle_failure(handling, what_next)
            return

        def on_outcome(receipt: Receipt) -> None:  # on the publisher's I/O thread
            if receipt.confirmed:
                self._consumer.ack(delivery)
                self._drop(delivery)
                self._publisher.connection.call_later(MOVING, lambda: self._forget(message.id))
            else:
                self._send_again_later(delivery, receipt)

        with self._lock:
            self._moving[message.id] = delivery
        log.info("%s: message %s %s -> %s", safe(self.queue.name), message.short_id,
                 "was held too long" if delivery.is_overdue else "had lost its worker",
                 safe(what_next.target))  # fmt: skip
        properties = kept_properties(delivery.properties)
        if not self._hand_over(what_next.copy, what_next.target, properties, on_outcome):
            self._drop(delivery)

    def _forget(self, id: str) -> None:
        with self._lock:
            self._moving.pop(id, None)

    def _send(self, handling: Handling, outputs: list[Message]) -> None:
        if self.writes is None:  # results nobody asked for
            outputs = []
        writes = self.writes or ""
        told = tuple([Output(each.id, writes, self._kept(each.body)) for each in outputs])
        fate = handling.fate("done", self.queue.name, told, body=self._kept_of_job(handling))
        self._publish(handling.delivery, [(each, writes, None) for each in outputs], fate)

    def _handle_failure(self, handling: Handling, error: BaseException) -> None:
        message = handling.message
        failure = retry.after(message, error, self.queue)
        fate = handling.fate(
            "dead" if failure.delay is None else "retried",
            self.queue.name,
            reason=failure.reason,
            traceback=failure.traceback,
            delay=failure.delay or 0.0,
            body=self._kept_of_job(handling),
        )
        self.failures.append((message.id, error))
        # No error text here: it may quote the body, and logs go where bodies must not.
        log.log(
            logging.WARNING if failure.delay is None else logging.INFO,
            "%s: message %s, attempt %d: %s -> %s", safe(self.queue.name), message.short_id,
            message.attempt, type(error).__name__, safe(failure.target),
        )  # fmt: skip
        properties = kept_properties(handling.delivery.properties)
        self._publish(handling.delivery, [(failure.copy, failure.target, properties)], fate)

    def _kept_of_job(self, handling: Handling) -> bytes | None:
        return None if handling.message.parent else self._kept(handling.message.body)

    def _kept(self, body: bytes) -> bytes | None:
        return body if 0 < self.settings.keep_bodies >= len(body) else None

    def _publish(
        self,
        delivery: Delivery,
        outputs: list[tuple[Message, str, pika.BasicProperties | None]],
        fate: Fate,
    ) -> None:
        """Publish all *outputs*; when the last is confirmed, tell the *fate* of *delivery*."""
        waiting = len(outputs)

        def on_outcome(receipt: Receipt) -> None:  # on the publisher's I/O thread, and only there
            nonlocal waiting
            if receipt.confirmed:
                waiting -= 1
                if waiting == 0:
                    self._events.tell(delivery, fate)
            else:
                self._send_again_later(delivery, receipt)

        if not outputs:
            self._events.tell(delivery, fate)
        for output in outputs:
            if not self._hand_over(*output, on_outcome):
                self._drop(delivery)
                return

    def _hand_over(
        self,
        message: Message,
        queue: str,
        properties: pika.BasicProperties | None,
        callback: Callable[[Receipt], None],
    ) -> bool:
        """Give *message* to the publisher; False when that one is closed or has failed."""
        while True:
            try:
                self._publisher.publish(message, queue, properties=properties, callback=callback)
                return True
            except OutcomeUnknown as error:  # the window was full all the time: it was not sent
                self._problem = str(error)
            except MousetrapError:
                return False

    def _settle(self, told: list[Told]) -> None:
        """The broker has everything that came of these deliveries: have them acked."""
        for delivery, _ in told:  # before they count: `stop` acks what has been counted
            self._consumer.ack(delivery)
        with self._lock:
            for delivery, fate in told:
                if not delivery.is_dropped:
                    self._in_hand -= 1
                self._counts[fate.outcome] += 1
            self._problem = ""
        self._changed.ring()

    def _send_again_later(self, delivery: Delivery, receipt: Receipt) -> None:
        self._problem = str(receipt.error)
        log.warning("%s: %s", safe(self.queue.name), receipt.error)
        delay = RESEND_DELAY * (1 + random.random())  # so at most once a second
        self._publisher.connection.call_later(delay, lambda: self._send_again(delivery, receipt))

    def _send_again(self, delivery: Delivery, receipt: Receipt) -> None:
        if not self._consumer.is_current(delivery) or self.error is not None:
            self._forget(receipt.message.id)
            self._drop(delivery)  # its channel is gone: it comes again as a new delivery
            return
        if receipt.outcome == "returned":
            self._publisher.declare(self._declarations)  # somebody deleted a queue: put it back
        self._publisher.send_again(receipt)

    def _drop(self, delivery: Delivery) -> None:
        """Give up on a delivery without an ack; the broker still has the message."""
        with self._lock:
            if not delivery.is_dropped:
                delivery.is_dropped = True
                self._in_hand -= 1
        self._changed.ring()

    def failed(self, error: MousetrapError) -> None:
        """Take note that there is no way to go on; whoever waits for this worker gets *error*."""
        with self._lock:
            if self.error is None and not self._stopping:
                log.error("worker of %r stopped: %s", self.queue.name, error)
                self.error = error
        self._changed.ring()

    def _crashed(self, error: BaseException) -> None:
        problem = MousetrapError(f"a hand of {self.handler.name} died of {error!r}; a defect")
        problem.__cause__ = error
        self.failed(problem)

    def _on_delivery(self, delivery: Delivery) -> None:
        self._counts["received"] += 1
        self._hands.take(delivery)


def running() -> list[Worker]:
    """The workers of this process that were started and have not ended."""
    return [each for each in list(_started) if each.statistics().state not in ("failed", "closed")]
