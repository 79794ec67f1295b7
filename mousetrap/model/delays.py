"""How a message is sent later: how long it waits, in which queue, and when it expires.

RabbitMQ expires messages only at the head of a queue, so all messages in one queue must wait for
the same time. One queue for each different delay would make the number of queues unlimited. So a
delay is rounded to one of 223 waiting times, by less than 5 % or 100 ms; only those that are used
have a queue. Each target has delay queues of its own, ``remind.delay.60s``: a target that is full
or was deleted holds up no message for another target. Nothing here talks to a broker. Prototyped in
``notebooks/09_shapes.ipynb``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from mousetrap.model.headers import EXPIRES
from mousetrap.runtime import clock

MIN_SEND_DELAY = 0.05  # seconds; a shorter delay is none, which is less than 100 ms off
MAX_SEND_DELAY = 604_800.0  # seconds: seven days
MAX_EXPIRES = 315_360_000.0  # seconds: ten years, as for times of RabbitMQ
MAX_PRIORITY = 255  # AMQP sends a priority in 8 bits
_EVEN_UP_TO = 4_000  # milliseconds: below, the waiting times are 100 ms apart
# Above, they are 4 % to 10 % apart. A delay is not rounded up by more than this: the broker needs
# some milliseconds as well.
_MAX_ROUNDED_UP = 0.0465
_NAME = re.compile(r"(?P<target>.+)\.delay\.[0-9.e+-]+s(?:\.2)?")


class SendOptions(NamedTuple):
    """How a message is sent: its *priority*, its *delay* in seconds, and after how many it expires.

    Make it by `checked`. A *delay* of 0.0 is none.
    """

    priority: int | None = None
    delay: float = 0.0
    expires: float | None = None

    @classmethod
    def checked(cls, priority: Any = None, delay: Any = None, expires: Any = None) -> SendOptions:
        """Return the options.

        Raises:
            ValueError: the priority is no whole number in 0..255, *delay* is not in 0..604,800
                seconds (7 days), or *expires* is not above the delay.
        """
        is_whole = isinstance(priority, int) and not isinstance(priority, bool)
        if priority is not None and not (is_whole and 0 <= priority <= MAX_PRIORITY):
            raise ValueError(f"priority {priority!r}: it must be a whole number in 0..255")
        if delay is not None and not (_is_number(delay) and 0 <= delay <= MAX_SEND_DELAY):
            raise ValueError(
                f"delay {delay!r}: it must be a number of seconds from 0 to {MAX_SEND_DELAY:g} "
                f"(seven days); for a later time, store the task and send it when it is nearer"
            )
        waits = 0.0 if delay is None or delay < MIN_SEND_DELAY else float(delay)
        if expires is None:
            return cls(priority, waits)
        if not (_is_number(expires) and 0 < expires <= MAX_EXPIRES):
            raise ValueError(f"expires {expires!r}: it must be a number of seconds above 0")
        if expires <= waits:
            raise ValueError(
                f"expires {expires:g}: with a delay of {waits:g} s it would expire before it is "
                f"delivered; both count from the sending"
            )
        return cls(priority, waits, float(expires))

    def headers(self, others: Mapping[str, Any] | None = None) -> Mapping[str, Any] | None:
        """Return the headers of a message that is sent now: *others*, and when it expires."""
        if self.expires is None:
            return others
        return {**(others or {}), EXPIRES: clock.time() + self.expires}


DEFAULT = SendOptions()


def waiting_time(delay: float) -> float:
    """Return the seconds that a message with this *delay* (seconds) waits: one of 223 values.

    They are 50 ms, then each 0.1 s up to 4 s, then 4.2, 4.4, ... 5, 5.5, 6, ... 10, 11, 12, ... 20,
    22, ... up to a week. The difference is at most 50 ms below 4 s, 4.9 % above.
    """
    wanted = round(delay * 1000)  # in milliseconds, so that all values are exact
    if wanted < 75:
        return MIN_SEND_DELAY
    if wanted < _EVEN_UP_TO:
        return round(wanted / 100) / 10
    unit: int = 10 ** math.floor(math.log10(wanted))
    step = unit // 10 if wanted < 2 * unit else unit // 5 if wanted < 5 * unit else unit // 2
    shorter = wanted // step * step
    longer = shorter + step
    is_nearer = longer - wanted < wanted - shorter
    if is_nearer and longer - wanted <= _MAX_ROUNDED_UP * wanted:
        return longer / 1000
    return shorter / 1000


def delay_queue(target: str, delay: float) -> str:
    """Return the plain name of the queue where messages to *target* wait *delay* seconds.

    *delay* is a value of `waiting_time`.
    """
    return f"{target}.delay.{delay:g}s"


def delayed_target(name: str) -> str | None:
    """Return the queue whose delay queue is *name*; None for other names."""
    found = _NAME.fullmatch(name)
    return found["target"] if found else None


def has_expired(headers: Mapping[str, Any]) -> bool:
    """Return whether a message with these headers is too late to be handled.

    The time is that of the sender's clock.
    """
    at = headers.get(EXPIRES)
    return at is not None and _is_number(at) and clock.time() > at


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value
