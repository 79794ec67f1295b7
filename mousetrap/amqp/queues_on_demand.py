"""Queues that are declared when the first message is published to them: of retries, delays, deaths.

They are declared again before each batch of publishes to them, on the same channel. So if another
program has deleted one, it is there again; and if another program has declared one with other
arguments, the broker refuses before it accepts a message that would wait there for ever.

A declaration that the broker refuses closes the channel or the connection, and with it what other
messages wait for. So after a refusal the queue is used as it is, and declared again only if it does
not exist, once in `DECLARE_AGAIN` seconds.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable

from pika.channel import Channel

from mousetrap.amqp.error_translation import declare
from mousetrap.amqp.new_queues import NewQueues, is_quorum, is_waiting_queue
from mousetrap.amqp.receipt import Receipt
from mousetrap.amqp.reply_codes import how_to_delete
from mousetrap.errors import MousetrapError, QueueMissing, TopologyMismatch
from mousetrap.model.topology import SUBSTITUTE, Declaration
from mousetrap.runtime import clock

log = logging.getLogger("mousetrap.amqp.queues_on_demand")

DECLARE_AGAIN = 5.0  # seconds after a refusal; a guess: a lost channel costs the others a second
MAX_SILENT = 2  # confirms in a row that a queue may owe, if no other queue answers either


class QueuesOnDemand:
    """Declares queues right before a publish, and says where to publish if one cannot be used.

    If a retry or delay queue has other arguments, or answers no publish, the queue with the same
    name and `SUBSTITUTE` is used instead. A dead queue with other arguments is used as it is,
    because dead letters only wait there. If a queue cannot be declared for another reason, such as
    a missing permission, it is used if it exists. `problems` says so.

    Threads: the I/O thread.
    """

    def __init__(self, declarations: Iterable[Declaration] = ()) -> None:
        self.substitutes: dict[str, str] = {}  # queue that must not be used -> what to use instead
        self.problems: dict[str, str] = {}  # queue -> what is wrong with it, and what to do
        self.new = NewQueues()
        self._declares = True
        self._declarations = {each.name: each for each in declarations}
        self._used: dict[str, Declaration] = {}  # those that were declared so far
        self._postponed: dict[str, float] = {}  # queue -> when to declare it again at the earliest
        self._missing: set[str] = set()  # postponed ones that do not exist
        self._silent: Counter[str] = Counter()  # confirms that each queue owes, in a row

    @property
    def used(self) -> list[Declaration]:
        """The queues that were declared so far; if they expire, that has to be renewed."""
        return list(self._used.values())

    @property
    def problem(self) -> str:
        """What is wrong with these queues, and what to do; "" if nothing is. Threads: any."""
        return "; ".join(list(self.problems.values()))

    @property
    def declarations(self) -> list[Declaration]:
        """The queues that can be declared."""
        return list(self._declarations.values())

    def connected(self, product: str, *, declares: bool = True) -> None:
        """Remember what the broker calls itself, and if it allows to declare these queues.

        If it does not, they exist (see `Declarer`), and are used as they are.
        """
        self.new.connected(product)
        self._declares = declares
        if not declares:
            self._declarations = {}

    def add(self, declaration: Declaration) -> None:
        """Declare *declaration* from now on, before the messages to it. Threads: any."""
        name = declaration.name
        if not self._declares or declaration.how == "exists":
            return  # it is used as it is; a message to a queue that does not exist is returned
        if name not in self._declarations and name not in self.substitutes:
            self._declarations[name] = declaration  # at once: `batch` copies in one step

    def use(self, name: str) -> None:
        """Use the queue *name*, which exists, as it is from now on. Threads: any."""
        self._declarations.pop(name, None)  # at once, as in `add`

    def batch(self) -> dict[str, Declaration]:
        """Return the queues for which `prepare` is to be called before a publish, by name."""
        if not self._declarations:
            return {}
        due = dict(self._declarations)
        for name, earliest in self._postponed.items():
            if name not in self._missing or clock.monotonic() < earliest:
                due.pop(name, None)
        return due | {name: self._declarations[other] for name, other in self.substitutes.items()}

    def prepare(self, channel: Channel, receipt: Receipt, batch: dict[str, Declaration]) -> None:
        """Give *receipt* the queue to use; declare it if it is the first of its *batch* for it."""
        if receipt.exchange:
            return
        receipt.queue = self.substitutes.get(receipt.queue, receipt.queue)
        if declaration := batch.pop(receipt.queue, None):
            name = declaration.name
            if self._postponed.pop(name, None):
                self.problems.pop(name, None)
            self._missing.discard(name)
            self._used[name] = declaration
            if is_quorum(declaration):
                if name in self.new.old:
                    declare(channel, declaration, passive=True)
                self.new.declared(name)
            declare(channel, declaration)

    def confirmed(self, receipts: list[Receipt], now: float) -> list[Receipt]:
        """Return those of *receipts*, which the broker has just confirmed, that count at once."""
        if self._silent:
            for receipt in receipts:
                del self._silent[receipt.queue]
        return self.new.counted(receipts, now)

    def returned(self, receipts: list[Receipt]) -> None:
        """Remember that the queues of *receipts* do not exist."""
        self._missing.update(each.queue for each in receipts if each.queue in self._postponed)

    def timed_out(self, receipts: list[Receipt], timeout: float, *, is_silent: bool) -> None:
        """Replace waiting queues that have not confirmed *receipts* within *timeout* seconds.

        *is_silent*: the broker has not answered for any other queue either.
        """
        for name in {each.queue for each in receipts if not each.exchange}:
            declaration = self._declarations.get(name)
            if declaration is None or not is_waiting_queue(declaration):
                continue
            self._silent[name] += 1
            if not is_silent or self._silent[name] >= MAX_SILENT:
                self._replace(
                    declaration,
                    f"the queue {name!r} has confirmed no message within {timeout:g} s, like a "
                    f"quorum queue without a leader (rabbitmq-queues quorum_status)",
                )

    def lost(self, error: MousetrapError) -> None:
        """Find out whether *error*, which closed the channel, is about one of these queues."""
        text = str(error)
        for name in list(self._used):
            if repr(name) in text or f"'{name}'" in text:
                declaration = self._used.pop(name)
                if isinstance(error, QueueMissing):
                    self.new.deleted(name)
                else:
                    self._refused(declaration, error)

    def _refused(self, declaration: Declaration, error: MousetrapError) -> None:
        name = declaration.name
        reason = str(error).split("\n")[0].rstrip(":")
        if not isinstance(error, TopologyMismatch) and "RESOURCE_LOCKED" not in reason:
            self._postponed[name] = clock.monotonic() + DECLARE_AGAIN
            self._report(name, f"{reason}; until it is declared, {name!r} is used if it exists")
        elif is_waiting_queue(declaration):
            self._replace(declaration, f"{reason}: a message might never come back from it")
        else:
            del self._declarations[name]
            self._report(
                name, f"{reason}; dead letters go there all the same, and wait as it lets them"
            )

    def _replace(self, declaration: Declaration, reason: str) -> None:
        name = declaration.name
        if name.endswith(SUBSTITUTE):
            how = how_to_delete(name)
            self._report(name, f"{reason}; delete it ({how}): nothing can be retried until then")
            return
        substitute = Declaration(name + SUBSTITUTE, declaration.arguments)
        self._declarations[substitute.name] = substitute
        self.substitutes[name] = substitute.name
        del self._declarations[name]
        self._used.pop(name, None)
        self._report(
            name,
            f"{reason}. Messages wait in {substitute.name!r} instead. What is in {name!r} already "
            f"may stay there: look (mousetrap queues, mousetrap peek). When it is empty, delete it "
            f"({how_to_delete(name)}) and start the workers again",
        )

    def _report(self, queue: str, problem: str) -> None:
        if self.problems.get(queue) != problem:
            self.problems[queue] = problem
            log.warning("%s", problem)
