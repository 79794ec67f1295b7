"""What a client really promises, read off its wire: who says "persistent" sends a 2."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from pika import frame

from mousetrap.fault_injection.frames import Command


@dataclass
class Kept:
    """Counts of one client's messages from *source* to *target*, or only to *target*."""

    published: int = 0
    persistent: int = 0  # of those published
    confirmed: int = 0  # published on a channel that had asked for confirms
    mandatory: int = 0
    acked: int = 0  # deliveries from the source
    early: int = 0  # of those acked: more acks than outputs that the broker had confirmed

    def all_of(self, count: int) -> bool:
        """Say whether what was counted holds for every one of them."""
        return bool(self.published) and count == self.published


@dataclass
class _Channel:
    confirms: bool = False
    tag: int = 0  # of the latest publish
    waiting: set[int] = field(default_factory=set)  # tags of outputs without a confirm
    delivered: set[int] = field(default_factory=set)  # tags from the source without an ack


class Promises:
    """Listens at a `Tap`: ``tap.heard = promises.hear``. Messages are known by their routing key.

    Threads: `hear` from any.
    """

    def __init__(self) -> None:
        self.source = self.target = ""
        self._lock = threading.Lock()
        self._begin()

    def watch(self, target: str, source: str = "") -> None:
        """Count anew, from here on, what goes to *target* and what is acked of *source*."""
        with self._lock:
            self.source, self.target = source, target
            self._begin()

    def _begin(self) -> None:
        self.kept = Kept()
        self._answered = 0  # outputs that the broker has confirmed
        self._channels: dict[tuple[int, int], _Channel] = defaultdict(_Channel)

    def hear(self, link: int, direction: str, command: Command) -> None:
        """Record one command; it has not been forwarded yet."""
        if command.name not in _READ:
            return
        with self._lock:
            channel = self._channels[link, command.channel]
            rest, found = command.data, []
            while rest:
                size, value = frame.decode_frame(rest)
                rest = rest[size:]
                found.append(value)
            _READ[command.name](self, channel, direction, found)

    def _select(self, channel: _Channel, _: str, __: list[Any]) -> None:
        channel.confirms, channel.tag = True, 0

    def _publish(self, channel: _Channel, _: str, found: list[Any]) -> None:
        channel.tag += 1
        if found[0].method.routing_key != self.target:
            return
        self.kept.published += 1
        self.kept.persistent += found[1].properties.delivery_mode == 2
        self.kept.mandatory += found[0].method.mandatory
        self.kept.confirmed += channel.confirms
        if channel.confirms:
            channel.waiting.add(channel.tag)

    def _deliver(self, channel: _Channel, _: str, found: list[Any]) -> None:
        if found[0].method.routing_key == self.source:
            channel.delivered.add(found[0].method.delivery_tag)

    def _ack(self, channel: _Channel, direction: str, found: list[Any]) -> None:
        method = found[0].method
        tags = channel.delivered if direction == "to broker" else channel.waiting
        settled = {
            each for each in tags
            if each == method.delivery_tag or (method.multiple and each < method.delivery_tag)
        }  # fmt: skip
        tags -= settled
        if direction == "from broker":
            self._answered += len(settled)
            return
        before = max(self.kept.acked, self._answered)
        self.kept.acked += len(settled)
        self.kept.early += max(0, self.kept.acked - before)


_READ = {
    "Confirm.Select": Promises._select,
    "Basic.Publish": Promises._publish,
    "Basic.Deliver": Promises._deliver,
    "Basic.Ack": Promises._ack,
}
