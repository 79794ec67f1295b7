"""An actor of a program: one channel, and what the runner knows about its deliveries."""

from __future__ import annotations


class Actor:
    """A channel, its unsettled deliveries, and its unconfirmed publishes."""

    def __init__(self, link, channel):
        self.link = link
        self.channel = channel
        self.reset()

    def reset(self):
        """Start again: the channel is closed, or not open yet."""
        self.held = []  # [(tag, consumer)], in an order that does not depend on the broker
        self.is_mixed = False  # deliveries of several queues came in one step: in any order
        self.consumers = {}  # tag -> (queue, whether acks are wanted)
        self.unconfirmed = {}  # number -> body
        self.published = None  # how many, with confirms

    def note(self, events):
        """Remember the deliveries and cancellations of a step."""
        delivered = sorted(events.get("delivered", []), key=lambda each: each[:2])
        queues = {self.consumers[each[0]][0] for each in delivered if each[0] in self.consumers}
        self.is_mixed = self.is_mixed or len(queues) > 1
        for consumer, tag, *_ in delivered:
            if self.consumers.get(consumer, (None, False))[1]:
                self.held.append((tag, consumer))
        for tag in events.get("cancelled", []):
            self.consumers.pop(tag, None)

    def settle(self, which, multiple):
        """Return the tag of a delivery, by its index, and forget what is settled with it."""
        tag = self.held[which % len(self.held)][0]
        if multiple and self.is_mixed:
            tag = 0  # all: which deliveries are below a tag depends on the broker
        self.held = [
            each for each in self.held
            if not (each[0] == tag or (multiple and (tag == 0 or each[0] < tag)))
        ]  # fmt: skip
        return tag
