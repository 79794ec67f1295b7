"""Stages of flows with several targets: queues, and exchanges of each type."""

from __future__ import annotations

from collections.abc import Iterator

from mousetrap import Exchange, Queue, Send, stage

QUICK = (0.02, 0.05)  # seconds


@stage(reads="raw", writes=["visits", "archive"], retry_delays=QUICK)
def parse(line: str) -> Iterator[int]:
    yield from map(int, line.split())


@stage(reads="visits", writes="scored", routes=["errors", "late"], retry_delays=QUICK)
def score(n: int) -> Iterator[int | Send]:
    """Score 0 goes nowhere it may; even numbers to `scored`, odd ones to `errors`."""
    if n == 0:
        yield Send(n, to="nowhere")
    yield Send(n, to="errors", headers={"odd": True}) if n % 2 else n * 10


@stage(reads="archive", retry_delays=QUICK)
def store(n: int) -> None: ...


# ---- exchanges -----------------------------------------------------------------------------------

orders = Exchange("orders", "topic")
states = Exchange("states", "direct")
alarms = Exchange("alarms", "fanout")


def state_of(order: list[str]) -> str:
    return order[1]


@stage(
    reads="raw_orders",
    writes=["log", orders[".".join], states[state_of]],
    routes=[alarms],
    retry_delays=QUICK,
)
def publish(order: list[str]) -> Iterator[list[str] | Send]:
    """Publish ``["de", "paid"]`` with the key ``de.paid``, and by its state."""
    yield order
    if order[1] == "stolen":
        yield Send("help", to=alarms)


@stage(reads=Queue("audit", bindings=[orders["*.paid"]]), retry_delays=QUICK)
def audit(order: list[str]) -> None:
    if order[0] == "fr":
        raise ValueError("no luck")


@stage(reads=Queue("german", bindings=[orders["de.#"], orders["*.paid"]]), writes="seen")
def german(order: list[str]) -> list[str]:
    return order


@stage(reads=Queue("ship", bindings=[states["paid"]]))
def ship(order: list[str]) -> None: ...


@stage(reads=Queue("police", bindings=alarms))
def police(text: str) -> None: ...


@stage(reads=Queue("press", bindings=[alarms]))
def press(text: str) -> None: ...
