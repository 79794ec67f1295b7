"""Which delivery guarantees a client uses, from the bytes it sends: persistence, confirms, acks."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from pika import frame

from mousetrap.fault_injection.frames import Command


@dataclass
class GuaranteeCounts:
    """Counts of one client's messages from *source* to *target*, or only to *target*."""

    published: int = 0
    persistent: int = 0  # of those published
    confirmed: int = 0  # published on a channel that had asked for confirms
    mandatory: int = 0
    acked: int = 0  # deliveries from the source
    acked_early: int = 0  # of those acked: more acks than outputs that the broker had confirmed

    def all_of(self, count: int) -> bool:
        """Return whether *count* is the number of all published messages, and not zero."""
        return bool(self.published) and count == self.published


@dataclass
class _Channel:
    confirms: bool = False
    tag: int = 0  # of the latest publish
    waiting: set[int] = field(default_factory=set)  # tags of outputs without a confirm
    delivered: set[int] = field(default_factory=set)  # tags from the source without an ack


class GuaranteeObserver:
    """Counts the guarantees of the messages that pass a `ByteProxy`.

    Use it as ``byte_proxy.on_command = observer.record``. Messages are recognised by their routing
    key.

    Threads: `record` from any.
    """

    def __init__(self) -> None:
        self.source = self.target = ""
        self._lock = threading.Lock()
        self._reset()

    def watch(self, target: str, source: str = "") -> None:
        """Start to count what is published to *target*, and which acks there are for *source*."""
        with self._lock:
            self.source, self.target = source, target
            self._reset()

    def _reset(self) -> None:
        self.counts = GuaranteeCounts()
        self._answered = 0  # outputs that the broker has confirmed
        self._channels: dict[tuple[int, int], _Channel] = defaultdict(_Channel)

    def record(self, link: int, direction: str, command: Command) -> None:
        """Count one command, before it is forwarded."""
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
        self.counts.published += 1
        self.counts.persistent += found[1].properties.delivery_mode == 2
        self.counts.mandatory += found[0].method.mandatory
        self.counts.confirmed += channel.confirms
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
        before = max(self.counts.acked, self._answered)
        self.counts.acked += len(settled)
        self.counts.acked_early += max(0, self.counts.acked - before)


_READ = {
    "Confirm.Select": GuaranteeObserver._select,
    "Basic.Publish": GuaranteeObserver._publish,
    "Basic.Deliver": GuaranteeObserver._deliver,
    "Basic.Ack": GuaranteeObserver._ack,
}
