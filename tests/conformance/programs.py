"""Random programs for the differential test: few names, several messages, several consumers.

A program follows from its seed alone, on every machine. Hypothesis does not draw them, because it
mixes in numbers from the modules that are loaded, so that one seed gives different programs.

Each program has a theme: which kinds of queues there are, and which operations are likely. Without
themes hardly any program would requeue two messages of one queue. A program begins with what its
theme needs, and goes on with random operations.

Some cases are not drawn, because the order in RabbitMQ itself is a matter of timing: two queues
that dead-letter into the same queue; two queues that overflow into each other; a channel that
closes while two queues dead-letter into each other (each learns of it separately); a queue that
gets messages from an exchange and as dead letters at the same time. Messages come into a queue from
one source at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

TTL = 10  # milliseconds: it expires within the step
LONG_TTL = 600_000  # milliseconds: it never expires
KEYS = ("k", "k.l", "m")
TO_DEAD = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
TO_A = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "a"}
SETTLING = {"ack": 6, "nack": 6, "reject": 4, "recover": 1, "close": 1}
USING = {"publish": 8, "get": 4, "consume": 4, "cancel": 1, "qos": 2}
RARE = {
    "confirm": 1, "purge": 1, "delete": 1, "declare": 1, "leave": 0.3, "wrong": 1.5,
}  # fmt: skip
ROUTING = {
    "publish": 10, "bind": 4, "unbind": 2, "get": 4, "bind_exchange": 1.5, "unbind_exchange": 0.7,
    "declare_exchange": 1.5, "delete_exchange": 0.7, "consume": 1, "confirm": 1, "delete": 0.7,
    "declare": 1, "wrong": 1, "ack": 2, "purge": 0.5,
}  # fmt: skip


@dataclass(frozen=True)
class Theme:
    """The queues and the operations of a kind of program."""

    queues: dict  # name -> the arguments that it can have
    weights: dict = field(default_factory=lambda: SETTLING | USING | RARE)
    properties: tuple = ({},)
    prefetches: tuple = (0, 1, 1, 2, 3)
    durable: tuple = (True, False)
    requeue: tuple = (True, True, False)


LENGTHS = tuple(
    {"x-max-length": length, **rule}
    for length in (1, 2, 3)
    for rule in ({}, {"x-overflow": "drop-head"}, {"x-overflow": "reject-publish"},
                 {"x-overflow": "reject-publish-dlx"})
)  # fmt: skip
PRIORITIES = tuple({"priority": each} for each in (0, 1, 2, 3, 9))
THEMES = {
    "plain": Theme({"a": ({},), "b": ({}, {"x-max-length": 3})}),
    "turns": Theme(
        {"a": ({}, {"x-single-active-consumer": True})},
        weights=SETTLING | USING | RARE | {"consume": 9, "qos": 4, "cancel": 3, "publish": 10},
        prefetches=(1, 1, 2),
    ),
    "dead letters": Theme(
        {"a": (TO_DEAD, {"x-dead-letter-exchange": "y"}, {"x-dead-letter-exchange": ""},
               *(each | TO_DEAD for each in LENGTHS)),
         "dead": ({}, {}, TO_A, {"x-max-length": 2})},
        weights=SETTLING | USING | RARE | {"nack": 8, "reject": 8},
        properties=({}, {}, {"headers": {"mine": "x"}}, {"expiration": "0"}),
    ),
    "loops": Theme(
        {"a": (TO_DEAD, TO_DEAD | {"x-max-length": 2}),
         "dead": (TO_A, {"x-message-ttl": 0} | TO_A, {"x-message-ttl": 0} | TO_A)},
        weights=USING | {"get": 10, "nack": 8, "reject": 10, "ack": 1, "recover": 1},
        requeue=(False, False, False, True),
    ),
    "limits": Theme(
        {"a": (*LENGTHS, {"x-max-length-bytes": 8}, {"x-max-length": 0},
               {"x-max-length-bytes": 10, "x-overflow": "reject-publish"}),
         "b": ({}, {"x-max-length": 2})},
        weights=SETTLING | USING | RARE | {"publish": 14, "consume": 1},
    ),
    "expiry": Theme(
        {"a": ({"x-message-ttl": TTL} | TO_DEAD, {"x-message-ttl": 0} | TO_DEAD, TO_DEAD, {},
               {"x-message-ttl": LONG_TTL}, {"x-message-ttl": TTL}, {"x-message-ttl": 0}),
         "dead": ({}, {}, TO_A, {"x-message-ttl": TTL} | TO_A)},
        properties=({}, *({"expiration": str(each)} for each in (TTL, 0, LONG_TTL))),
    ),
    "priorities": Theme(
        {"a": tuple({"x-max-priority": each, **more}
                    for each in (1, 3, 10) for more in ({}, TO_DEAD, {"x-max-length": 3})),
         "dead": ({},)},
        properties=PRIORITIES,
    ),
    "routing": Theme({"a": ({},), "b": ({},), "dead": ({},)}, weights=ROUTING),
    "headers": Theme({"a": ({},), "b": ({},)}, weights={"publish": 10, "bind": 5, "get": 4}),
    "quorum": Theme(
        {"a": tuple({"x-queue-type": "quorum", **more}
                    for more in ({}, TO_DEAD, {"x-delivery-limit": 1},
                                 {"x-delivery-limit": 2} | TO_DEAD,
                                 {"x-delivery-limit": 0} | TO_DEAD)),
         "dead": ({},)},
        weights=SETTLING | USING | RARE | {"declare": 0.2, "delete": 0.2, "nack": 8, "reject": 8},
        durable=(True,),
    ),
}  # fmt: skip
SHARES = (
    ["plain"] * 3 + ["turns"] * 4 + ["dead letters"] * 4 + ["loops"] * 2 + ["limits"] * 3
    + ["expiry"] * 2 + ["priorities"] * 2 + ["routing"] * 4 + ["headers"] * 2 + ["quorum"]
)  # fmt: skip


def random_program(seed):
    """Return a list of operations for `ProgramRunner.run`; *seed* is a number or text."""
    random = Random(seed)
    return _Generator(random.choice, random.choice(SHARES)).program()


class _Generator:
    def __init__(self, choice, theme):
        self._choice = choice
        self._name = theme
        self._theme = THEMES[theme]
        self._queues = tuple(self._theme.queues)
        self._sources = tuple(each for each in self._queues if each != "dead") or self._queues
        self._messages = self._consumers = 0
        self._tags = ("c1", "c2")
        self._routes = theme in ("routing", "headers")

    def _pick(self, *choices):
        return self._choice(choices)

    def program(self):
        """Return what the theme needs, then random operations, weighted by the theme."""
        ops = []
        for queue in self._queues:
            arguments = self._pick(*self._theme.queues[queue])
            durable = self._pick(*self._theme.durable)
            ops.append(("declare", 0, {"queue": queue, "arguments": arguments, "durable": durable}))
        if self._routes:
            ops += [self.declare_exchange(each) for each in ("x", "y")]
            ops += [self.bind() for _ in range(4)]
        elif any(arguments.get("x-dead-letter-exchange") == "y"
                 for _, _, options in ops for arguments in [options["arguments"]]):  # fmt: skip
            ops.append(self.declare_exchange("y"))
            ops.append(("bind", 0, {"queue": "dead", "exchange": "y", "key": "a", "arguments": {}}))
        if self._name == "limits":
            ops += [("confirm", each, {}) for each in (0, 1)]  # so that rejected messages show
        elif self._pick(True, True, False):
            ops.append(self.confirm())
        if self._pick(True, False):
            ops += [self.qos(), self.consume()]
        ops += [self.publish() for _ in range(self._pick(2, 3, 4, 6))]
        names, weights = zip(*self._theme.weights.items(), strict=True)
        bag = [
            name
            for name, weight in zip(names, weights, strict=True)
            for _ in range(round(10 * weight))
        ]
        for _ in range(self._pick(8, 12, 16, 24)):
            ops.append(getattr(self, self._pick(*bag))())
        return ops

    def _actor(self):
        return self._pick(0, 0, 1, 2)

    def declare(self):
        queue = self._pick(*self._queues)
        arguments = self._pick(*self._theme.queues[queue])
        how = self._pick({}, {"passive": True}, {"exclusive": True}, {"auto_delete": True})
        if "quorum" in arguments.values():
            how = {}
        durable = self._pick(*self._theme.durable)
        options = {"queue": queue, "arguments": arguments, "durable": durable, **how}
        return "declare", self._actor(), options

    def delete(self):
        how = self._pick({}, {"if_unused": True}, {"if_empty": True})
        return "delete", self._actor(), {"queue": self._pick(*self._queues), **how}

    def purge(self):
        return "purge", self._actor(), {"queue": self._pick(*self._queues)}

    def declare_exchange(self, exchange=None):
        options = {
            "exchange": exchange or self._pick("x", "y"),
            "type": self._pick("direct", "fanout", "topic", "topic", "headers"),
            "arguments": {},
        }
        if self._name == "headers":
            options["type"] = "headers"
        if self._name == "routing":
            if options["exchange"] == "x":
                options["arguments"] = self._pick({}, {}, {"alternate-exchange": "y"})
            options |= self._pick({}, {}, {}, {"internal": True}, {"auto_delete": True})
        if exchange is None:
            options |= self._pick({}, {"passive": True})
        return "declare_exchange", self._actor(), options

    def delete_exchange(self):
        how = self._pick({}, {"if_unused": True})
        return "delete_exchange", self._actor(), {"exchange": self._pick("x", "y"), **how}

    def _binding(self):
        arguments = self._pick(
            {}, {"h": 2}, {"x-match": "all", "h": 1, "g": "v"},
            {"x-match": "any", "h": 1, "g": "v"}, {"x-match": "any-with-x", "x-h": 1},
            {"x-match": "all", "x-h": 1, "h": 1},
        )  # fmt: skip
        key = self._pick(*KEYS, "#", "*", "k.*", "k.#", "")
        queue, exchange = self._pick(*self._queues), self._pick("x", "x", "y", "amq.topic")
        return {"queue": queue, "exchange": exchange, "key": key, "arguments": arguments}

    def bind(self):
        return "bind", self._actor(), self._binding()

    def unbind(self):
        return "unbind", self._actor(), self._binding()

    def bind_exchange(self):
        source, destination = self._pick(("x", "y"), ("x", "y"), ("y", "x"))
        options = {"source": source, "destination": destination, "key": self._pick(*KEYS, "#", "")}
        return "bind_exchange", self._actor(), options

    def unbind_exchange(self):
        return "unbind_exchange", *self.bind_exchange()[1:]

    def publish(self):
        self._messages += 1
        exchange = self._pick("x", "x", "y", "amq.topic", "") if self._routes else ""
        properties = dict(self._pick(*self._theme.properties))
        if self._routes:
            headers = self._pick(
                {}, {"h": 1}, {"h": 1, "g": "v"}, {"h": 2}, {"g": "v"}, {"x-h": 1, "h": 1}
            )
            if self._pick(*[False] * 5, True):
                headers = headers | {"CC": ["b"]}
            if headers:
                properties["headers"] = headers
        if self._pick(*[False] * 5, True):
            properties["delivery_mode"] = 2
        usual = self._sources * 6 + ("dead", "a")
        options = {
            "exchange": exchange,
            "key": self._pick(*KEYS) if exchange else self._pick(*usual),
            "body": f"m{self._messages}" + self._pick("", "", "...."),
            "properties": properties,
        }
        if self._pick(*[False] * 3, True):
            options["mandatory"] = True
        return "publish", self._actor(), options

    def confirm(self):
        return "confirm", self._actor(), {}

    def get(self):
        options = {"queue": self._pick(*self._queues), "auto_ack": self._pick(False, False, True)}
        return "get", self._actor(), options

    def qos(self):
        return "qos", self._actor(), {"prefetch": self._pick(*self._theme.prefetches)}

    def consume(self):
        options = {
            "queue": self._pick(*self._queues),
            "tag": self._pick(*self._tags),
            "auto_ack": self._pick(False, False, False, True),
        }
        if self._name == "loops":  # an error would close the channel
            self._consumers += 1
            options["tag"] = f"c{self._consumers}"
        else:
            options |= self._pick(*[{}] * 8, {"exclusive": True}, {"arguments": {"x-priority": 5}})
        return "consume", self._actor(), options

    def cancel(self):
        return "cancel", self._actor(), {"tag": self._pick(*self._tags)}

    def _which(self):
        return self._pick(0, 0, 0, -1, -1, 1, 2)

    def ack(self):
        options = {"which": self._which(), "multiple": self._pick(True, False)}
        return "ack", self._actor(), options

    def nack(self):
        options = {"multiple": self._pick(True, False), "requeue": self._pick(*self._theme.requeue)}
        return "nack", self._actor(), {"which": self._which(), **options}

    def reject(self):
        return "reject", self._actor(), {
            "which": self._which(), "requeue": self._pick(*self._theme.requeue),
        }  # fmt: skip

    def recover(self):
        return "recover", self._actor(), {}

    def close(self):
        return "close", self._actor(), {}

    def leave(self):
        return "leave", self._actor(), {}

    def wrong(self):
        """Return an operation that fails."""
        queue = self._pick(*self._queues)
        other = {"queue": queue, "durable": True, "arguments": {"x-max-length": 77}}
        missing = {"exchange": "nowhere", "key": "k", "body": "lost", "properties": {}}
        nowhere = {"queue": queue, "exchange": "nowhere", "key": "", "arguments": {}}
        unknown = {"exchange": "x", "type": "nonsense", "arguments": {}}
        return self._pick(
            ("ack", self._actor(), {"which": None, "multiple": False}),
            ("ack", self._actor(), {"which": None, "multiple": True}),
            ("nack", self._actor(), {"which": None, "multiple": False, "requeue": True}),
            ("reject", self._actor(), {"which": None, "requeue": False}),
            ("declare", self._actor(), other),
            ("declare", self._actor(), {"queue": "b", "arguments": {}, "passive": True}),
            ("get", self._actor(), {"queue": "nowhere", "auto_ack": True}),
            ("consume", self._actor(), {"queue": "nowhere", "tag": "c3", "auto_ack": False}),
            ("consume", self._actor(), {"queue": queue, "tag": "c1", "auto_ack": False}),
            ("publish", self._actor(), missing),
            ("publish", self._actor(), missing | {"exchange": "", "immediate": True}),
            ("bind", self._actor(), nowhere),
            ("declare_exchange", self._actor(), unknown),
            ("recover", self._actor(), {"requeue": False}),
            ("commit", self._actor(), {}),
            ("purge", self._actor(), {"queue": "nowhere"}),
        )  # fmt: skip
