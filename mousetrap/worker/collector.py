"""Collects the parts of a join: holds them unacked until their group is complete.

The queue of a join has a single active consumer, so one worker holds all messages of a group. It
keeps no other state: when it ends, the broker delivers them to another worker, which builds the
same groups again. A complete group is published as one message with the list of its parts, to the
work queue of the join, where it is handled like any other message; when the broker has confirmed
that, all parts are acked. The messages here are not handled: they never count as lost with a
worker. Prototyped in ``notebooks/09_shapes.ipynb``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from mousetrap.amqp.consumer import Consumer
from mousetrap.amqp.delivery import Delivery
from mousetrap.amqp.io_thread import IOThread
from mousetrap.amqp.publisher import Publisher
from mousetrap.display.formats import counted
from mousetrap.display.safe_text import safe
from mousetrap.errors import JoinFailed, MousetrapError, UndecodableMessage
from mousetrap.model import retry_policy
from mousetrap.model.decoding import decode
from mousetrap.model.join_groups import (
    EndKind,
    Join,
    Received,
    Report,
    bundle,
    end_mark,
    joined,
    received,
)
from mousetrap.model.join_headers import NOTICE, Missing, death_notices, with_entries
from mousetrap.model.join_tree import Leaf, ReportKind
from mousetrap.model.message import Message
from mousetrap.model.outcome import Output
from mousetrap.model.topology import Queue
from mousetrap.runtime import clock
from mousetrap.runtime.interrupt import Waiter
from mousetrap.settings import Settings
from mousetrap.worker.held_messages import HeldMessages
from mousetrap.worker.join_group import EndedGroup, HeldMessage, PartGroup
from mousetrap.worker.publications import Publication

log = logging.getLogger("mousetrap.worker.worker")

MAX_HELD = 50_000  # messages of all groups; beyond, the newest group is dead-lettered
MAX_HELD_BYTES = 500_000_000  # of their bodies; a guess
MAX_ENDED = 10_000  # groups whose end is remembered, against copies that come later
ENDED_TIME = 900.0  # seconds that it is remembered
JOIN_PREFETCH = 65_000  # AMQP has 16 bits for it; MAX_HELD, MAX_ENDED, and what is over the limit
# Seconds after which a held message is published again. Half of the broker's time-out for acks is
# 900; publishing them takes a few checks.
MAX_HOLD = 600.0
MAX_PUBLISHED_AGAIN = 5_000  # messages in one check
JOIN_CHECK_INTERVAL = 30.0  # seconds
MAX_DEATHS_NAMED = 3  # of dead parts, in the reason of their group
JOIN_STOP_TIMEOUT = 1.0  # seconds for the groups that are being published


class Collector:
    """Collects the groups of *join*, whose parts come to ``queue.join``, for the stage *stage*.

    It publishes by *publisher*. *on_failed* is called when its connection has failed permanently.

    Threads: `open` and `stop` from any but the I/O thread; the rest runs there.
    """

    def __init__(
        self,
        queue: Queue,
        join: Join,
        stage: str,
        settings: Settings,
        publisher: Publisher,
        io_thread: IOThread,
        on_failed: Callable[[MousetrapError], object],
    ) -> None:
        self.received = 0
        self._queue = queue
        self._join = join
        topology = settings.topology
        declarations = topology.declarations(queue)
        self._consumer = Consumer(
            settings, topology.wire_name(queue.join), JOIN_PREFETCH, declarations,
            on_delivery=self._on_delivery, on_failed=on_failed, io_thread=io_thread,
        )  # fmt: skip
        self._messages = HeldMessages(queue, stage, self._consumer, publisher, declarations)
        self._changed = Waiter()
        self._is_stopping = False
        self._forget()

    def _forget(self) -> None:
        self._generation = -1
        self._groups: dict[str, PartGroup] = {}  # by the id of the message that was split
        self._ended: dict[str, EndedGroup] = {}  # the oldest first
        self._marks = 0  # messages held for `_ended`
        self._bytes = 0  # of the bodies of all groups

    def open(self) -> None:
        """Begin to collect, if no other worker does. Raises what `Connection.open` raises."""
        self._consumer.open()
        self._consumer.connection.call_later(self._check_interval, self._check)

    def stop(self, timeout: float = JOIN_STOP_TIMEOUT) -> None:
        """Finish the groups that are being published, and close: the others go to the next worker.

        Takes up to *timeout* seconds.
        """
        self._is_stopping = True
        if self._consumer.connection.is_open:
            self._changed.wait_for(lambda: not any(self._ending()), timeout)
        self._consumer.close(0.0)

    @property
    def held(self) -> int:
        """How many messages of groups it holds; 1 while the broker may deliver some again."""
        is_recovering = self._consumer.connection.is_recovering
        return max(self._consumer.unacked - self._marks, int(is_recovering))

    @property
    def is_recovering(self) -> bool:
        """Its connection broke, and the broker may not have delivered its messages again yet."""
        return self._consumer.connection.is_recovering

    # ---- messages --------------------------------------------------------------------------------

    def _on_delivery(self, delivery: Delivery) -> None:
        if delivery.generation != self._generation:
            self._forget()  # the broker delivers all of them again
            self._generation = delivery.generation
        self.received += 1
        message = delivery.message(self._queue.join)
        held = HeldMessage(delivery, message)
        try:
            found = received(message, self._queue.join)
        except UndecodableMessage as error:
            self._messages.dead_letter(held, error)
            return
        if found.ended is not None:
            self._add_mark(found, held)
        elif (ended := self._ended.get(found.entry.source)) is None:
            self._add(found, held)
        elif ended.kind == "failed" and held.is_replayed:
            self._begin_again(found.entry.source)
            self._add(found, held)
        else:
            self._after_end(held, ended.kind)

    def _add(self, found: Received, held: HeldMessage) -> None:
        """Add what a message says to its group."""
        source, key = found.entry.source, held.key
        if (group := self._groups.get(source)) is None:
            group = self._groups[source] = PartGroup(found.entry)
        before = group.held.get(key)
        if before is not None:
            group.held[key] = held  # the newer one: it has more time until it must be acked
            if not before.is_published_again:  # else that publish acks it
                self._messages.release(before)
            return
        if group.is_ending:
            group.late.append(held)
            return
        if problem := group.add(held.message, found):
            self._refuse(group, held, problem)
            return
        group.held[key] = held
        self._bytes += len(held.message.body)
        if group.tree.is_complete:
            self._complete(group)
        elif held.delivery.is_near_delivery_limit:
            self._messages.publish_again(held)
        self._check_room()

    def _refuse(self, group: PartGroup, held: HeldMessage, problem: str) -> None:
        """Dead-letter *group*, and the message *held*, which it cannot take."""
        if group.held:
            self._fail(group, problem)
            group.late.append(held)
        else:
            del self._groups[group.entry.source]
            self._messages.dead_letter(held, JoinFailed(problem))

    def _check_room(self) -> None:
        """Dead-letter the newest group if there are too many messages."""
        if self._consumer.unacked - self._marks > MAX_HELD or self._bytes > MAX_HELD_BYTES:
            newest = next((e for e in reversed(self._groups.values()) if not e.is_ending), None)
            if newest is not None:
                self._fail(
                    newest,
                    f"{counted(self._consumer.unacked, 'message')} of "
                    f"{len(self._groups):,} unfinished groups wait for their joins; this group is "
                    f"the newest. Send less at a time, "
                    f"or find out what keeps the oldest ones",
                )

    def _after_end(self, held: HeldMessage, ended: EndKind) -> None:
        """Drop a copy of what was joined; dead-letter what was not, or may not have been."""
        if ended == "joined":
            log.debug("%s: message %s came again after its group was joined",
                      safe(self._queue.join), held.message.short_id)  # fmt: skip
            self._messages.release(held)
        elif ended == "failed":
            self._messages.dead_letter(held, JoinFailed(
                "its group was dead-lettered before it came: replay both"))  # fmt: skip
        else:
            self._messages.dead_letter(held, JoinFailed(
                "its group was joined without some parts before it came: nothing waits for it"
            ))  # fmt: skip

    # ---- the end of a group ----------------------------------------------------------------------

    def _complete(self, group: PartGroup) -> None:
        leaves = list(group.tree.leaves())
        missing = [each.value for each in leaves if each.kind is ReportKind.DEAD]
        if missing and self._join.missing == "fail":
            self._fail(group, _why_missing(missing))
            return
        message = joined(group.entry, leaves, self._template(group, leaves))
        kind: EndKind = "joined without parts" if missing else "joined"
        self._end(group, [(message, self._queue.name, None)], kind)

    def _template(self, group: PartGroup, leaves: Sequence[Leaf[Report]]) -> Message:
        """Return the message whose headers the joined one gets: the first part, if there is one."""
        for kind, report in leaves:
            if kind is ReportKind.PART and report.id in group.held:
                return group.held[report.id].message
        return group.first.message

    def _fail(self, group: PartGroup, reason: str) -> None:
        """Dead-letter *group* with all that has come of it."""
        if group.is_ending:
            return
        reports = [
            report for held in group.held.values()
            for report in received(held.message, self._queue.join).reports
        ]  # fmt: skip
        message = bundle(group.entry, reports, group.first.message)
        error = JoinFailed(f"the join of message {safe(group.entry.source[:8])}: {reason}")
        failure = retry_policy.after_failure(message, error, self._queue)
        log.warning("%s: %s -> %s", safe(self._queue.join), error, safe(failure.target))
        around = Message(id=message.id, job=message.job,
                         headers=with_entries({}, group.entry.outer))  # fmt: skip
        notices = death_notices(around, self._queue.name, failure.reason)
        self._end(
            group,
            [(failure.copy, failure.target, None),
             *((each, target, None) for each, target in notices)],
            "failed",
            failure,
        )  # fmt: skip

    def _end(
        self,
        group: PartGroup,
        publications: list[Publication],
        kind: EndKind,
        failure: retry_policy.Replacement | None = None,
    ) -> None:
        """Publish what a group becomes; when it is confirmed, remember that, then ack its parts."""
        if self._is_stopping:
            return
        group.is_ending = True
        body = self._messages.recorder.kept(publications[0][0].body) if kind != "failed" else None
        output = Output(group.entry.group, self._queue.name, body)
        mark = (end_mark(group.entry, group.first.message, kind), self._queue.join, None)

        def on_marked() -> None:
            if self._groups.get(group.entry.source) is group:
                del self._groups[group.entry.source]
                self._ended.setdefault(group.entry.source, EndedGroup(kind))
                self._finish(group, kind, output, failure)

        def on_published() -> None:
            if self._groups.get(group.entry.source) is group:
                self._messages.publish(group.first, [mark], on_marked)

        self._messages.publish(
            group.first, publications, on_published, lambda: self._scatter(group)
        )

    def _finish(
        self,
        group: PartGroup,
        kind: EndKind,
        output: Output,
        failure: retry_policy.Replacement | None,
    ) -> None:
        if failure is not None:
            self._messages.publish_dead(group.first, failure)
        held_parts = [each for each in group.held.values() if NOTICE not in each.message.headers]
        source = held_parts[0] if held_parts else group.first  # for the ledger of a run
        for held in group.held.values():
            self._bytes -= len(held.message.body)
            self._messages.release(held, (output,) if held is source else ())
        for held in group.late:
            self._after_end(held, kind)
        self._changed.notify_all()

    def _scatter(self, group: PartGroup) -> None:
        """Dead-letter each message of *group*: the broker does not accept them as one."""
        if self._groups.pop(group.entry.source, None) is group:
            self._ended[group.entry.source] = EndedGroup("failed")
            for held in (*group.held.values(), *group.late):
                self._messages.dead_letter(held, JoinFailed(
                    "the parts of its group are too large for one message: store them elsewhere "
                    "and send their paths or URLs"))  # fmt: skip

    def _add_mark(self, found: Received, held: HeldMessage) -> None:
        """Remember that a group has ended; what came of it again before this is a copy."""
        assert found.ended is not None
        source = found.entry.source
        group = self._groups.get(source)
        if group is not None and not group.is_ending:
            if found.ended == "failed":
                self._messages.ack(held.delivery)
                if not any(each.is_replayed for each in group.held.values()):
                    self._fail(group, "the rest of a group that was dead-lettered before")
                return
            del self._groups[source]
            for each in group.held.values():
                self._bytes -= len(each.message.body)
                self._after_end(each, found.ended)
        known = self._ended.get(source)
        if known is not None and known.mark is not None:
            self._messages.ack(known.mark)
            self._marks -= 1
        self._ended[source] = EndedGroup(found.ended, held.delivery)
        self._marks += 1

    def _begin_again(self, source: str) -> None:
        if (mark := self._ended.pop(source).mark) is not None:
            self._messages.ack(mark)
            self._marks -= 1

    def _ending(self) -> Iterable[PartGroup]:
        return (each for each in list(self._groups.values()) if each.is_ending)

    # ---- time ------------------------------------------------------------------------------------

    @property
    def _check_interval(self) -> float:
        return min(JOIN_CHECK_INTERVAL, self._join.timeout / 4)

    def _check(self) -> None:
        """Dead-letter groups that are too old; publish again what is held for long."""
        for group in list(self._groups.values()):
            if not group.is_ending and group.is_older(self._join.timeout):
                self._fail(group, group.incomplete_after(self._join.timeout))
        late = clock.monotonic() - MAX_HOLD
        waiting = (
            held for group in self._groups.values() if not group.is_ending
            for held in group.held.values() if held.since < late and not held.is_published_again
        )  # fmt: skip
        for held in list(islice(waiting, MAX_PUBLISHED_AGAIN)):
            self._messages.publish_again(held)
        for source, ended in list(self._ended.items()):
            if len(self._ended) <= MAX_ENDED and ended.since > clock.monotonic() - ENDED_TIME:
                break
            del self._ended[source]
            if ended.mark is not None:
                self._messages.ack(ended.mark)
                self._marks -= 1
        self._consumer.connection.call_later(self._check_interval, self._check)


def _why_missing(missing: Sequence[Report]) -> str:
    found = [decode(each.body, Missing) for each in missing[:MAX_DEATHS_NAMED]]
    reasons = "; ".join(f"{each.queue}: {each.reason}" for each in found)
    return f"{len(missing):,} of its parts were dead-lettered ({reasons}): replay them and this"
