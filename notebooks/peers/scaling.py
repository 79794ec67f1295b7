"""How the rates grow with the processes that publish or work, and the processor time of a message.

Prototyped in ``notebooks/bench_scaling.ipynb``.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

import psutil

from mousetrap import Message, Publisher, Settings, declare
from mousetrap.job_queue import delete, depth
from mousetrap.worker.supervisor import Supervisor
from peers.race import Racer, body_of

TIMEOUT = 120.0  # seconds of a measurement
POLL_INTERVAL = 0.02  # seconds between two questions to the broker
WINDOW = 2000  # publishes of a process that may wait for their confirm


@dataclass(frozen=True)
class Load:
    """What a number of processes did together."""

    rate: float  # messages a second
    ours: float  # seconds of processor time a message, of these processes
    rest: float  # the same of the rest of the machine: the broker, if nothing else runs

    def on(self, cores: int) -> float:
        """Return the messages a second at which so many *cores* would be busy with nothing else."""
        return cores / (self.ours + self.rest)


def published(settings: Settings, processes: int, messages: int, size: int) -> Load:
    """Let so many *processes* publish *messages* each, confirmed, to one queue at the same time."""
    place = settings.topology.wire_name("published")
    declare("published", settings=settings)
    racers = [Racer("ours", settings) for _ in range(processes)]
    try:
        for each in racers:
            each.ready()
        meter = _Meter([each.pid for each in racers])
        wish = {"queue": place, "body": body_of(size), "messages": messages, "window": WINDOW}
        for each in racers:
            each.begin("publish", **wish)
        slowest = max(each.end(TIMEOUT)["seconds"] for each in racers)
        return meter.load(processes * messages, slowest)
    finally:
        for each in racers:
            each.close()
        delete("published", settings=settings)


def relayed(settings: Settings, processes: int, messages: int, size: int) -> Load:
    """Let ``mousetrap work --processes`` take so many *messages* from one queue to the next.

    All of them wait in the queue before; counted is what moves once all processes consume.
    """
    declare("relayed", "arrived", settings=settings)
    try:
        with Publisher(settings) as publisher:
            bodies = (Message("x" * (size - 2)) for _ in range(messages))
            publisher.publish_until_confirmed(bodies, "relayed")
        with Supervisor({"peers.jobs:relay": processes}, settings) as workers:
            deadline = time.monotonic() + TIMEOUT
            while depth("relayed", settings).consumers < processes:
                _wait(workers, deadline)
            meter = _Meter(workers.pids().values())
            first, begun = depth("arrived", settings).messages, time.monotonic()
            while (arrived := depth("arrived", settings).messages) < messages:
                _wait(workers, deadline)
            load = meter.load(arrived - first, time.monotonic() - begun)
        if first > messages / 2:
            raise AssertionError(f"{first} of {messages} were done before all worked: raise it")
        return load
    finally:
        delete("relayed", "arrived", settings=settings)


class _Meter:
    """Reads the processor time of some processes and of the whole machine, from now on."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._processes = [psutil.Process(pid) for pid in pids]
        self._ours, self._all = self._read()

    def load(self, messages: int, seconds: float) -> Load:
        ours, everything = self._read()
        ours, everything = ours - self._ours, everything - self._all
        return Load(messages / seconds, ours / messages, max(0.0, everything - ours) / messages)

    def _read(self) -> tuple[float, float]:
        ours = 0.0
        for each in self._processes:
            with suppress(psutil.NoSuchProcess):
                ours += sum(each.cpu_times()[:2])
        machine = psutil.cpu_times()
        return ours, machine.user + machine.system + getattr(machine, "softirq", 0.0)


def _wait(workers: Supervisor, deadline: float) -> None:
    workers.check()
    if time.monotonic() > deadline:
        raise TimeoutError(f"not within {TIMEOUT:g} s")
    time.sleep(POLL_INTERVAL)
