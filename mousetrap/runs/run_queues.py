"""The queues of one run: declared at its start, read and counted meanwhile, deleted at its end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from shlex import join, quote
from typing import TYPE_CHECKING

from mousetrap import job_queue
from mousetrap.amqp.queue_counter import QueueCounter
from mousetrap.display.safe_text import safe
from mousetrap.errors import QueueMissing, SettingsError, WireError
from mousetrap.flows.flow import Flow
from mousetrap.flows.known_queues import dead_letter_exchanges, dead_letter_queues
from mousetrap.model.delays import delayed_target
from mousetrap.model.exchanges import Exchange
from mousetrap.model.ledger import Ledger
from mousetrap.model.message import Message
from mousetrap.model.message_list import Messages
from mousetrap.model.outcome import declared_in
from mousetrap.model.topology import (
    SUBSTITUTE,
    AnyDeclaration,
    Declaration,
    Queue,
    check_queue_name,
)
from mousetrap.runs.delete_exchanges import delete_exchanges
from mousetrap.runs.run_marker import MARKER
from mousetrap.runtime import clock
from mousetrap.settings import Settings

if TYPE_CHECKING:
    from mousetrap.amqp.connection import Connection
    from mousetrap.amqp.consumer import Consumer
    from mousetrap.amqp.publisher import Publisher
    from mousetrap.amqp.queue_depth import Depth
    from mousetrap.runs.run_lock import RunLock

END_TIMEOUT = 10.0  # seconds to close the connections of a run and to delete all its queues


class RunQueues:
    """The queues of *flow* in the namespace of *settings*.

    *queues* are those that the stages read, with the retry delays of the run. Beside them there are
    the result queues, which no stage reads, the queue of the outcomes and the marker. *ledger*
    knows to which other queues handlers have sent messages.

    Threads: any.
    """

    def __init__(
        self, settings: Settings, flow: Flow, queues: Sequence[Queue], ledger: Ledger
    ) -> None:
        self.read_by_stages = list(queues)
        self._settings = settings
        self._flow = flow
        self._ledger = ledger
        self._settled_results: set[str] = set()  # ids that were taken, or are known as missing
        self._added: list[str] = []  # plain names
        self._lock: RunLock | None = None
        self._counter: QueueCounter | None = None

    def count_over(self, connection: Connection) -> None:
        """Let `depths` ask over *connection* while it is open, and not over one of its own."""
        self._counter = QueueCounter(connection)

    def results(self) -> list[str]:
        """Return the plain names of the result queues.

        To the ones of the flow they add the queues to which handlers sent messages themselves.
        """
        named = {name for queue in self.read_by_stages for name in queue.possible_names()}
        named.update(self._flow.results)
        added = [name for name in self._added if delayed_target(name) is None]
        dead = dead_letter_queues(self._flow.known_queues.values())
        others = dict.fromkeys([*added, *dead, *self._ledger.published()])
        return [*self._flow.results, *(name for name in others if name not in named)]

    def delay_queues(self) -> list[str]:
        """Return the plain names of the queues where messages wait for their delay."""
        return [name for name in self._added if delayed_target(name) is not None]

    def known(self) -> set[str]:
        """Return the plain names of the queues that stages read, and of the result queues."""
        return {queue.name for queue in self.read_by_stages} | set(self.results())

    def declarations(self) -> list[AnyDeclaration]:
        """Return the queues to declare at the start, and the exchange of the outcomes.

        Workers declare the retry queues and the dead queues when they first need them.
        """
        topology = self._settings.topology
        queues = [
            each for queue in self.read_by_stages
            for each in (*topology.declarations(queue), *topology.bindings(queue))
        ]  # fmt: skip
        exchanges = [each for one in self._exchanges() for each in topology.exchange(one)]
        known = self._flow.known_queues
        results = [topology.work_queue(known.get(e, e)) for e in (*self.results(), MARKER)]
        return [*queues, *exchanges, *results, *topology.events_queue()]

    def wire_names(self) -> list[str]:
        """Return the names on the broker of all queues that the run can have."""
        names = [each.name for each in self.declarations() if isinstance(each, Declaration)]
        wire_name = self._settings.topology.wire_name
        possible = [name for queue in self.read_by_stages for name in queue.possible_names()]
        possible += [each for name in self.delay_queues() for each in (name, name + SUBSTITUTE)]
        return list(dict.fromkeys([*names, *map(wire_name, possible)]))

    def exchanges(self) -> list[str]:
        """Return the names on the broker of the exchanges of the flow."""
        wire_name = self._settings.topology.wire_name
        return [wire_name(each.name) for each in self._exchanges()]

    def _exchanges(self) -> list[Exchange]:
        known = self._flow.exchanges
        names = {each.name for each in known}
        dead = dead_letter_exchanges(self._flow.known_queues.values())
        return [*known, *(Exchange(name) for name in dead if name not in names)]

    def claim(self) -> None:
        """Let `sweep` know the queues, from before they are declared until `delete`.

        Raises:
            RunError: another process has this namespace (see `RunLock`).
        """
        from mousetrap.runs.run_lock import RunLock  # late: it imports what a broker needs

        self._lock = RunLock(self._settings, self.wire_names(), self.exchanges())

    def add_declared(self, body: bytes) -> bool:
        """Record the queue that a worker declared for a handler's message, if *body* says so."""
        if (queue := declared_in(body)) is None:
            return False
        with suppress(SettingsError):  # no name of a queue: another program published it
            self.add(check_queue_name(queue))
        return True

    def add(self, queue: str) -> None:
        """Record the queue *queue*, which the run deletes.

        Its name goes into the run's file at once, for a `sweep` after this process was killed.
        """
        if queue not in self._added:
            self._added.append(queue)
            if self._lock is not None:
                self._lock.add({"queues": self.wire_names()})

    def note_broker(self, product: str) -> None:
        """Let `sweep` know if the broker, and all queues with it, ends with its process."""
        from mousetrap.broker import local, probe  # late, as in `claim`

        is_temporary = product.startswith(probe.EMBEDDED) or local.started_here(self._settings)
        if is_temporary and self._lock is not None:
            self._lock.add({"has_temporary_broker": True})

    def depths(self, names: list[str], timeout: float) -> list[Depth | None]:
        """Return the depth of each of the queues with these plain names; None if it is missing.

        Raises:
            BrokerUnreachable, ConnectionLost: the broker did not answer within *timeout* seconds.
        """
        found = self._counter.read(names, timeout) if self._counter is not None else None
        if found is None:  # the connection is not open; another one may be had
            return job_queue.depths(names, self._settings, timeout=timeout)
        return [found[name] for name in names]

    def kept_text(self) -> str:
        """Return where the queues of a run that failed are, for a person with a shell."""
        work = self.read_by_stages
        names = [*(q.name for q in work), *(q.dead for q in work), *self.results()]
        namespace = self._settings.namespace
        return (
            f"the queues of {namespace} stay. To see them: MOUSETRAP_NAMESPACE={quote(namespace)} "
            f"mousetrap queues {join(names)}; to delete them: mousetrap sweep"
        )

    def take_results(self, timeout: float, queue: str | None = None) -> Messages:
        """Take the messages out of the result queues, with *timeout* seconds for each queue.

        With *queue* it takes those of this one. The `note` of the list says how many are missing,
        each time that there are more of them. Raises what `drain` raises; ``taken`` of the
        exception has what was taken before. SettingsError: *queue* is no result queue.
        """
        names = self.results()
        if queue is not None and queue not in names:
            raise SettingsError(
                f"{safe(queue, 80)!r} is no result queue of this run: use one that no stage reads "
                f"({', '.join(names) or 'there is none'}); for others use mousetrap.peek or drain "
                f"with settings=run.settings"
            )
        names = names if queue is None else [queue]
        expected = self.results_left(names)
        found: list[Message] = []
        for name in names:
            try:
                found += job_queue.drain(name, timeout=timeout, settings=self._settings)
            except QueueMissing:  # it was deleted: its results are missing
                continue
            except BaseException as error:
                vars(error)["taken"] = [*found, *vars(error).get("taken", ())]
                raise
        self._settled_results.update(message.id for message in found)
        note = ""
        if missing := expected & self.results_left(names):
            try:
                depths = self.depths(names, timeout)
            except WireError as error:  # what was taken is returned all the same
                note = f"{len(missing):,} of {len(expected):,} results were not taken: {error}"
                return Messages(found, f" out of {', '.join(names)}", note)
            ready = sum(each.messages for each in depths if each is not None)
            if len(missing) > ready:  # the others are there: the timeout was too short for them
                note = (
                    f"{len(missing) - ready:,} of {len(expected):,} results are not there: another "
                    f"consumer took them, or they were deleted (a purge, a limit, an expiry)"
                )
            if not ready:
                self._settled_results |= missing
        return Messages(found, f" out of {', '.join(names)}", note)

    def results_left(self, queues: Iterable[str] | None = None) -> set[str]:
        """Return the ids of the results that were published and that no call has taken so far."""
        names = set(self.results() if queues is None else queues)
        with self._ledger.figures() as figures:
            expected = figures.ids_in(names)
        return expected - self._settled_results

    def end(self, publisher: Publisher, events: Consumer, keep_queues: bool) -> None:
        """Close *publisher* and *events*, then delete the queues, all in `END_TIMEOUT` seconds.

        Raises what `delete` raises; *publisher* and *events* are closed then, too.
        """
        deadline = clock.monotonic() + END_TIMEOUT
        with ExitStack() as steps:  # the last step that is added runs first
            if not keep_queues:
                steps.callback(lambda: self.delete(clock.remaining(deadline)))
            steps.callback(events.close, 1.0)
            steps.callback(publisher.close, 1.0)
            steps.callback(events.close, 0.0)  # without a wait, so that both close at the same time

    def delete(self, timeout: float) -> None:
        """Delete all queues with their messages, and let `sweep` forget the run.

        Raises:
            BrokerUnreachable, ConnectionLost: the broker did not answer within *timeout* seconds;
                the queues stay until `sweep`.
        """
        bare = self._settings.replace(namespace="")
        deadline = clock.monotonic() + timeout
        job_queue.delete(*self.wire_names(), settings=bare, timeout=timeout)
        delete_exchanges(self.exchanges(), bare, timeout=clock.remaining(deadline))
        if self._lock is not None:
            self._lock.delete()

    def forget(self) -> bool:
        """Let `sweep` forget the run, because none of its queues was declared; return True."""
        if self._lock is not None:
            self._lock.delete()
        return True

    def release(self) -> None:
        """End the claim: if the queues were not deleted, `sweep` may delete them from now on."""
        if self._lock is not None:
            self._lock.release()
