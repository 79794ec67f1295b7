"""One group that a join collects: its tree, and the messages that the worker holds for it."""

from __future__ import annotations

from mousetrap.amqp.delivery import Delivery
from mousetrap.model.join_groups import MAX_GROUP_BYTES, EndKind, Received, Report
from mousetrap.model.join_headers import MAX_PARTS, NOTICE, JoinEntry
from mousetrap.model.join_tree import JoinTree, Path
from mousetrap.model.message import Message
from mousetrap.runtime import clock

MIN_COLLECTION_TIME = 300.0  # seconds; a guess
MAX_MISSING = 3  # places that the reason of an incomplete group names


class HeldMessage:
    """A message of a join's queue that is not acked yet."""

    __slots__ = ("begun", "delivery", "is_published_again", "message", "since")

    def __init__(self, delivery: Delivery, message: Message) -> None:
        self.delivery = delivery
        self.message = message
        self.since = clock.monotonic()
        self.begun = clock.steady_time()  # seconds since 1970, to be published
        self.is_published_again = False  # as a copy that is not here yet

    @property
    def key(self) -> str:
        """The same for copies of one message; two bundles of a group may have other reports."""
        is_bundle = self.message.headers.get(NOTICE) == "bundle"
        return f"{self.message.id}#{self.delivery.tag}" if is_bundle else self.message.id

    @property
    def is_replayed(self) -> bool:
        """Whether it, or the group that it has, was sent again from the dead queue."""
        return bool(self.message.replayed)


class EndedGroup:
    """What is remembered of a group that has ended; *mark* is the message that says it."""

    __slots__ = ("kind", "mark", "since")

    def __init__(self, kind: EndKind, mark: Delivery | None = None) -> None:
        self.kind = kind
        self.mark = mark
        self.since = clock.monotonic()


class PartGroup:
    """The messages that came of one message, as far as they have arrived.

    Threads: the I/O thread.
    """

    def __init__(self, entry: JoinEntry) -> None:
        self.entry = entry
        self.tree: JoinTree[Report] = JoinTree()
        self.held: dict[str, HeldMessage] = {}  # by the id of the message
        self.late: list[HeldMessage] = []  # those that came while it ended
        self.size = 0  # bytes of all reports
        self.is_ending = False
        self.begun = clock.monotonic()
        self.oldest = clock.time()  # when the oldest message was published, seconds since 1970

    @property
    def first(self) -> HeldMessage:
        """The message that was held first."""
        return next(iter(self.held.values()))

    def add(self, message: Message, received: Received) -> str:
        """Add what *message* says; return why the group cannot go on, or ""."""
        size = sum(each.size for each in received.reports)
        if self.size + size > MAX_GROUP_BYTES:
            return (
                f"its parts have more than {MAX_GROUP_BYTES:,} bytes together, which one message "
                f"has to hold: store them elsewhere and send their paths or URLs"
            )
        if self.tree.reports + len(received.reports) > MAX_PARTS:
            return f"more than {MAX_PARTS:,} parts came, which is the limit of a join"
        self.size += size
        for each in received.reports:
            self.tree.add(each.path, each.kind, each)
        if message.sent is not None and not message.replayed:
            self.oldest = min(self.oldest, message.sent)
        return ""

    def is_older(self, seconds: float) -> bool:
        """Return whether its oldest message is older than *seconds*.

        The others may have waited as long in the queue while no worker ran: they have
        `MIN_COLLECTION_TIME` to come.
        """
        here = clock.monotonic() - self.begun
        return here > min(seconds, MIN_COLLECTION_TIME) and clock.time() - self.oldest > seconds

    def incomplete_after(self, seconds: float) -> str:
        """Return the reason of a group that is not complete after *seconds*."""
        places = "; ".join(_place(path) for path in self.tree.missing(MAX_MISSING))
        return (
            f"not complete after {seconds:g} s: {self.tree.reports:,} are here, and missing is "
            f"{places}. Its messages may wait in a queue, or a stage on the way does not belong to "
            f"the flow; or these are copies that came after the group was joined"
        )


def _place(path: Path) -> str:
    if not path:
        return "all"
    return "part " + ".".join(f"{index + 1} of {count}" for index, count in path)
