"""How many messages a consumer may hold that are not acked: a fixed number, or one that follows.

Enough is what covers one round trip of ack and delivery at the rate at which handlers finish. Fewer
leave handlers without work; more keep messages from other workers.

RabbitMQ applies ``basic.qos`` to the consumers that begin after it. To change the number, a second
consumer is begun on the same channel. When it has got its first message, the first one is
cancelled; so nothing pauses, and no unacked delivery is lost. Before that, its acks are held back
for a moment: after an ack, a quorum queue assigns another message to the consumer, and if the
cancel comes before its delivery, the message returns to its queue. That can still happen to
messages that come while a consumer with room is cancelled, at most as many as it has room for. The
broker marks them as redelivered, so each counts as lost once, as after a crash: nobody can tell the
two apart.

Prototyped in ``notebooks/bench_prefetch.ipynb``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pika import spec
from pika.channel import Channel

from mousetrap.amqp.connection import Connection
from mousetrap.amqp.delivery import Delivery
from mousetrap.runtime import clock

# Seconds without an ack before a consumer is cancelled (see the module; seen with RabbitMQ 4.3,
# where a few milliseconds were enough).
QUIET_TIME = 0.1

MAX_AUTOMATIC = 1024  # messages; more is not faster (measured)
MAX_BYTES = 16_777_216  # of bodies, estimated by the mean of those that are not acked
SHRINK_INTERVAL = 1.0  # seconds between two checks whether fewer are enough

# After so many messages in so many seconds whose handlers then waited for more, the number grows. A
# few quick messages change nothing; nor do slow handlers that wait once because of a slow broker.
STARVED_MESSAGES = 16
STARVED_TIME = 1.0

# A queue with a single active consumer delivers nothing to the second one. After so many messages
# for the first one alone the number stays as it is: a switch would make another worker active.
MAX_FOR_FIRST_ALONE = 10
WITHOUT_SWITCHES = 16  # then, from the next connection on

# Seconds after which the second consumer is cancelled if no message has come that decides whether
# it may take over: an idle worker has one consumer.
SWITCH_TIMEOUT = 0.5

# How many cancelled consumers may still get deliveries. One may come after the answer to what was
# sent together with the cancel; three switches later, two more answers have come.
KEPT_CALLBACKS = 3

OnMessage = Callable[..., None]


class FixedPrefetch:
    """Always the same *number* of messages.

    Threads: I/O thread only; `number` is read from any.
    """

    is_switching = False

    def __init__(self, number: int) -> None:
        self.number = number
        self.tags: list[str] = []
        self.arguments: dict[str, Any] | None = None  # of the consumer

    def begin(
        self, channel: Channel, queue: str, on_message: OnMessage, on_ok: Callable[[Any], None]
    ) -> None:
        """Consume *queue* on a new *channel*; *on_ok* is called when the broker has accepted it."""
        channel.basic_qos(prefetch_count=self.number)
        arguments = self.arguments
        self.tags = [channel.basic_consume(queue, on_message, arguments=arguments, callback=on_ok)]

    def observe(self, unacked: int, settled: int) -> None:
        """Decide whether the number is right; called before *settled* of *unacked* are acked."""

    def delivered(self, consumer: str, tag: int) -> None:
        """Take notice of the delivery *tag* to *consumer*; called while it is switching."""

    def held_back(self, settled: Iterable[Delivery]) -> Iterable[Delivery]:
        """Return those of *settled* to ack now; called while it is switching."""
        return settled

    def keep(self) -> None:
        """Begin no other consumer: the number changes no more."""

    def end(self) -> list[str]:
        """Change the number no more; return the consumers to cancel."""
        tags, self.tags = self.tags, []
        return tags


class AutomaticPrefetch(FixedPrefetch):
    """As many messages as the handlers need, at least *least*.

    It grows when all messages that the broker may send have been handled and a handler waits for
    more. It shrinks at most once a second, to what was in progress at most in that second.

    *load* returns how many messages are in progress, begun and not acked, and whether a handler has
    nothing to do. *release* acks what was held back. *unacked* are the deliveries without an ack.
    """

    def __init__(
        self,
        least: int,
        load: Callable[[], tuple[int, bool]],
    ) -> None:
        super().__init__(least)
        self._least = least
        self._load = load
        self._most = MAX_AUTOMATIC
        self._starved, self._starved_since = 0, 0.0
        self._needed = 0  # the most messages in progress since the last check
        self._has_switched = False  # so the queue has not a single active consumer
        self._is_fixed = False
        self._check_is_due = False
        self._switches = 0  # that have ended
        self._connection: Connection
        self._release: Callable[[Iterable[Delivery]], object]
        self._unacked: Mapping[int, Delivery]
        # while it is switching
        self._is_retiring = False  # the first consumer is to be cancelled
        self._held: set[int] = set()  # tags of deliveries to the first consumer
        self._kept: list[Delivery] = []  # their acks, held back
        self._for_first_alone = 0
        self._has_begun = False  # the second consumer

    def attach(
        self,
        connection: Connection,
        unacked: Mapping[int, Delivery],
        release: Callable[[Iterable[Delivery]], object],
    ) -> None:
        """Use *connection*; *unacked* are its deliveries by tag, *release* acks deliveries."""
        self._connection, self._unacked, self._release = connection, unacked, release

    def begin(
        self, channel: Channel, queue: str, on_message: OnMessage, on_ok: Callable[[Any], None]
    ) -> None:
        """Consume *queue* on a new *channel*, with the least number again."""
        self._forget_switch()
        self._channel, self._queue, self._on_message = channel, queue, on_message
        self._retired: list[str] = []  # consumers that were cancelled, the last ones
        self._has_switched = False
        self.number = max(self._least, WITHOUT_SWITCHES) if self._is_fixed else self._least
        super().begin(channel, queue, on_message, on_ok)

    def observe(self, unacked: int, settled: int) -> None:
        """Grow if a handler waits although the broker has sent all that it may."""
        in_progress, is_idle = self._load()
        begun = in_progress + settled
        self._needed = max(self._needed, begun)
        if not (is_idle and begun >= unacked >= self.number and self.number < self._most):
            return
        now = clock.monotonic()
        if now > self._starved_since + STARVED_TIME:
            self._starved, self._starved_since = 0, now
        self._starved += settled
        if self._starved >= STARVED_MESSAGES:
            factor = 2 if self.number == self._least else 8
            self._switch(min(factor * self.number, self._limit()))

    def delivered(self, consumer: str, tag: int) -> None:
        """Cancel the first consumer soon after the second one has got a message."""
        if consumer == self.tags[-1]:
            self._retire_soon()
        elif consumer == self.tags[0]:
            self._held.add(tag)
            self._for_first_alone += self._has_begun
            if self._for_first_alone > MAX_FOR_FIRST_ALONE and not self._is_retiring:
                self._is_fixed = True
                self._stay()

    def held_back(self, settled: Iterable[Delivery]) -> Iterable[Delivery]:
        """Keep back the acks of the first consumer while it is about to be cancelled."""
        if not self._is_retiring:
            return settled
        now: list[Delivery] = []
        for each in settled:
            (self._kept if each.tag in self._held else now).append(each)
        return now

    def keep(self) -> None:
        """Begin no other consumer: the number changes no more, unless a switch is under way."""
        self._is_fixed = True

    def end(self) -> list[str]:
        """Change the number no more, and release the acks that were held back."""
        self._is_fixed = True
        tags, self.tags = self.tags, []
        self._forget_switch()
        return tags

    def _limit(self) -> int:
        sizes = [len(each.body) for each in self._unacked.values()]
        mean = sum(sizes) / max(1, len(sizes))
        return max(self._least, min(self._most, int(MAX_BYTES / max(1.0, mean))))

    def _switch(self, number: int) -> None:
        """Begin a consumer with *number*, unless a switch is under way."""
        if self.is_switching or self._is_fixed or number == self.number:
            return
        if not self._channel.is_open:
            return
        self.number = number
        self.is_switching = True
        self._starved = 0
        self._held = set(self._unacked)
        self._for_first_alone, self._has_begun = 0, False
        if len(self._retired) == KEPT_CALLBACKS:
            self._channel._consumers.pop(self._retired.pop(0), None)
        self._channel.basic_qos(prefetch_count=number)
        switch = self._switches
        self.tags.append(
            self._channel.basic_consume(
                self._queue, self._on_message, callback=lambda _: self._on_begun(switch)
            )
        )
        self._check_soon()

    def _on_begun(self, switch: int) -> None:
        if self._is_of_now(switch):
            self._has_begun = True
            if self._has_switched:
                self._retire_soon()
            else:
                self._connection.call_later(SWITCH_TIMEOUT, lambda: self._go_back(switch))

    def _go_back(self, switch: int) -> None:
        if self._is_of_now(switch) and not self._is_retiring and self._channel.is_open:
            self._stay()

    def _is_of_now(self, switch: int) -> bool:
        return self.is_switching and switch == self._switches

    def _retire_soon(self) -> None:
        if not self._is_retiring:
            self._is_retiring = self._has_switched = True
            switch = self._switches
            self._connection.call_later(QUIET_TIME, lambda: self._retire(switch))

    def _retire(self, switch: int) -> None:
        if self._is_of_now(switch) and self._channel.is_open:
            self._retired.append(self.tags.pop(0))
            cancel(self._channel, self._retired[-1])
            self._forget_switch()

    def _stay(self) -> None:
        cancel(self._channel, self.tags.pop())
        self.number = self._least
        self._forget_switch()

    def _forget_switch(self) -> None:
        self.is_switching = self._is_retiring = False
        self._switches += 1
        kept, self._kept = self._kept, []
        self._held = set()
        if kept:
            self._release(kept)

    def _check_soon(self) -> None:
        if not self._check_is_due:
            self._check_is_due = True
            self._connection.call_later(SHRINK_INTERVAL, self._check)

    def _check(self) -> None:
        """Shrink to what was needed since the last check."""
        self._check_is_due = False
        if self._is_fixed or self.number <= self._least:
            return
        in_progress, _ = self._load()
        needed, self._needed = max(self._needed, in_progress), in_progress
        enough = self._least if needed <= self._least else needed * 3 // 2
        enough = min(enough, self._limit())
        if 2 * enough <= self.number:
            self._switch(enough)
        self._check_soon()


def new_prefetch(
    number: int | None, least: int, load: Callable[[], tuple[int, bool]]
) -> FixedPrefetch:
    """Return a prefetch of *number*; with None it follows *load* (see `AutomaticPrefetch`)."""
    return AutomaticPrefetch(least, load) if number is None else FixedPrefetch(number)


def cancel(channel: Channel, tag: str) -> None:
    """Cancel the consumer *tag*; what is on its way to it still arrives.

    With `basic_cancel`, pika would reject that. The broker would mark these messages as
    redelivered, and the next process count them as losses.
    """
    method: Any = spec.Basic.Cancel(tag, nowait=True)  # type: ignore[no-untyped-call]  # pika's
    channel._send_method(method)
