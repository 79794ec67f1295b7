"""The worker of a stage that joins: it collects groups of parts, and handles the complete ones.

Prototyped in ``notebooks/bench_join.ipynb``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mousetrap.amqp.delivery import Delivery
from mousetrap.errors import UndecodableMessage
from mousetrap.model.headers import kept_headers
from mousetrap.model.join_groups import Join, has_missing_parts, parts
from mousetrap.model.join_headers import JOINED, JOINS
from mousetrap.model.message import Message
from mousetrap.model.poison_messages import Move
from mousetrap.model.topology import Queue
from mousetrap.worker.collector import Collector
from mousetrap.worker.handler import Handler
from mousetrap.worker.join_types import check_takes_missing, part_type
from mousetrap.worker.moves import MoveRule, move_rule
from mousetrap.worker.worker import Worker


class JoinHandler(Handler):
    """A function that is called with the list of the parts of a group.

    Raises:
        TypeError: as `Handler`, or its parameter is annotated as something other than a list, or
            as a list without `Missing`, which may be in it.
    """

    joins: Join

    def __init__(
        self,
        function: Callable[..., Any],
        joins: Join,
        name: str | None = None,
        carry: Sequence[str] = (),
    ) -> None:
        super().__init__(function, name, carry)
        self.joins = joins
        self.part_type: Any = part_type(self.accepts, self.name)
        if joins.missing == "pass":
            check_takes_missing(self.accepts, self.name)

    def arguments(self, message: Message) -> tuple[Any, ...]:
        """Return the list of the parts, as the only argument."""
        if self.accepts is not Message and has_missing_parts(message.content):
            return (parts(message.content, self.part_type),)
        return super().arguments(message)


class JoinWorker(Worker):
    """A `Worker` that collects as well, from ``queue.join``, for a `JoinHandler`."""

    def __init__(self, queue: Queue, handler: JoinHandler, *args: Any, **options: Any) -> None:
        super().__init__(queue, handler, *args, **options)
        self._processor.moves.rule = _rule
        self.collector = Collector(
            self.queue, handler.joins, handler.name, self.settings, self._publisher,
            self._publisher.connection.io_thread, self.fail,
        )  # fmt: skip

    def _start(self, stop_timeout: float, *, process_ends: bool = False) -> Worker:
        was_started = self._is_started
        super()._start(stop_timeout, process_ends=process_ends)
        if not was_started:
            try:
                self.collector.open()
            except BaseException:
                self._stop(stop_timeout, process_ends=process_ends)
                raise
        return self

    def _stop(self, timeout: float, *, process_ends: bool = False) -> None:
        self.collector.stop()  # first: its messages wait for the publisher
        super()._stop(timeout, process_ends=process_ends)

    @property
    def unacked(self) -> int:
        """How many deliveries, handled or collected, are not acked yet."""
        return super().unacked + self.collector.held

    @property
    def is_recovering(self) -> bool:
        """A connection broke, and the broker may not have delivered its messages again yet."""
        return super().is_recovering or self.collector.is_recovering

    def _held(self) -> tuple[int, int, int]:
        held, received, prefetch = super()._held()
        return held, received + self.collector.received, prefetch


def _rule(delivery: Delivery) -> MoveRule | None:
    """Return the rule for what came to the work queue of a join and is no joined message."""
    if (rule := move_rule(delivery)) is not None:
        return rule
    headers = delivery.properties.headers or {}
    if JOINED in headers:
        return None
    return to_be_collected if JOINS in headers else without_a_group


def to_be_collected(message: Message, queue: Queue) -> Move:
    """Return the move of a dead letter of the join, which was replayed, to where it collects."""
    return Move(message.copy(message.attempt, kept_headers(message.headers)), queue.join)


def without_a_group(_: Message, queue: Queue) -> UndecodableMessage:
    """Return the error for a message that came of no message of the stage that splits."""
    return UndecodableMessage(
        f"it belongs to no group, because it does not have the header {JOINS!r} of the join of "
        f"{queue.name!r}. Send to the stage that the join names, not to this queue; and define "
        f"the join in the module of that stage, or import it there, so that its worker knows it"
    )
