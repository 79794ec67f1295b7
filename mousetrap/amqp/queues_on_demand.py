"""Queues that are declared when the first message is published to them: retry and dead queues.

They are declared again before each batch of publishes to them, on the same channel. So if another
program has deleted one, it is there again; and if another program has declared one with other
arguments, the broker refuses before it accepts a message that would wait there for ever.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from pika.channel import Channel

from mousetrap.amqp.error_translation import declare
from mousetrap.amqp.receipt import Receipt
from mousetrap.errors import AccessRefused, ChannelLost, MousetrapError, TopologyMismatch
from mousetrap.model.topology import SUBSTITUTE, Declaration

log = logging.getLogger("mousetrap.amqp.queues_on_demand")


class QueuesOnDemand:
    """Declares queues right before a publish, and says where to publish if one is refused.

    If a retry queue exists with other arguments, the queue with the same name and `SUBSTITUTE` is
    used instead. A dead queue with other arguments is used as it is, because dead letters only wait
    there. Without the permission to declare, a queue is used if it exists. `problems` says so.

    Threads: the I/O thread.
    """

    def __init__(self, declarations: Iterable[Declaration] = ()) -> None:
        self.substitutes: dict[str, str] = {}  # queue that must not be used -> what to use instead
        self.problems: dict[str, str] = {}  # queue -> what is wrong with it, and what to do
        self._declarations = {each.name: each for each in declarations}
        self._used: dict[str, Declaration] = {}  # those that were declared so far

    @property
    def used(self) -> list[Declaration]:
        """The queues that were declared so far; if they expire, that has to be renewed."""
        return list(self._used.values())

    @property
    def problem(self) -> str:
        """What is wrong with these queues, and what to do; "" if nothing is. Threads: any."""
        return "; ".join(list(self.problems.values()))

    def batch(self) -> dict[str, Declaration]:
        """Return the queues for which `prepare` is to be called before a publish, by name."""
        if not self._declarations:
            return self._declarations
        return self._declarations | {
            name: self._declarations[other] for name, other in self.substitutes.items()
        }

    def prepare(self, channel: Channel, receipt: Receipt, batch: dict[str, Declaration]) -> None:
        """Give *receipt* the queue to use; declare it if it is the first of its *batch* for it."""
        if receipt.exchange:
            return
        receipt.queue = self.substitutes.get(receipt.queue, receipt.queue)
        if declaration := batch.pop(receipt.queue, None):
            self._used[declaration.name] = declaration
            declare(channel, declaration)

    def lost(self, error: MousetrapError) -> None:
        """Find out whether *error*, which closed the channel, is about one of these queues."""
        if not isinstance(error, (TopologyMismatch, AccessRefused)) and not (
            isinstance(error, ChannelLost) and "RESOURCE_LOCKED" in str(error)
        ):
            return
        for name, declaration in list(self._declarations.items()):
            if repr(name) in str(error) or f"'{name}'" in str(error):
                self._refused(declaration, error)

    def _refused(self, declaration: Declaration, error: MousetrapError) -> None:
        name = declaration.name
        reason = str(error).split("\n")[0].rstrip(":")
        if isinstance(error, AccessRefused):
            problem = f"{reason}; until then, {name!r} is used if it exists"
        elif "x-message-ttl" not in declaration.arguments:
            problem = f"{reason}; dead letters go there all the same, and wait as it lets them"
        elif name.endswith(SUBSTITUTE):
            self.problems[name] = f"{reason}; delete it: nothing can be retried until then"
            log.error("%s", self.problems[name])
            return
        else:
            substitute = Declaration(name + SUBSTITUTE, declaration.arguments)
            self._declarations[substitute.name] = substitute
            self.substitutes[name] = substitute.name
            problem = (
                f"{reason}: a message might never come back from it. Retries wait in "
                f"{substitute.name!r} instead. What is in {name!r} already may stay there: look "
                f"(mousetrap queues, mousetrap peek). When it is empty, delete it "
                f"(mousetrap.job_queue.delete) and start the workers again"
            )
        del self._declarations[name]
        self._used.pop(name, None)
        self.problems[name] = problem
        log.warning("%s", problem)
