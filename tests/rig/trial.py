"""One trial: jobs in, a worker that is a process of its own at work, and the history of each id."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.waiting import wait_for

from mousetrap.amqp.publisher import Publisher
from mousetrap.errors import MousetrapError, WireError
from mousetrap.job_queue import declare, depths, drain, open_channel
from mousetrap.model.message import Message
from mousetrap.model.topology import Queue
from mousetrap.settings import Settings
from mousetrap.worker.worker import Worker

from . import flow
from .checker import History

LONG = [pytest.mark.long, pytest.mark.timeout(1800)]
LAST = 60.0  # seconds for confirms, once nothing more is sent
NAIVE = Path(__file__).with_name("naive.py")


class Trial:
    """A work queue, a queue for results, and who was seen where; *settings* go to the broker."""

    def __init__(self, settings: Settings, queue: Queue | None = None) -> None:
        self.settings = settings
        self.queue = queue or Queue("work", ())
        self.history = History()
        self.on_letter: Callable[[Message], object] = lambda _: None
        self._publisher: Publisher | None = None
        declare(self.queue, "out", settings=settings)

    def name(self, queue: str) -> str:
        return self.settings.topology.wire_name(queue)

    def send(self, ids: Iterable[str], *, transient: bool = False) -> None:
        """Publish a job for each id, and write down what the broker said to it."""
        ids = list(ids)
        self.history.attempted |= set(ids)
        if not transient:
            if self._publisher is None:
                self._publisher = Publisher(self.settings).open()
            messages = (Message(id, id=id) for id in ids)
            for receipt in self._publisher.publish_many(messages, "work"):
                self._note(receipt)
            return
        with open_channel(self.settings) as channel:  # as the tutorial publishes
            for id in ids:
                channel.basic_publish("", self.name("work"), json.dumps(id).encode())
                self.history.confirmed.add(id)

    def send_raw(self, body: bytes, id: str) -> None:
        """Publish a body of any kind for one id."""
        self.history.attempted.add(id)
        with Publisher(self.settings) as publisher:
            self._note(publisher.publish(Message(body=body, id=id), "work"))

    @contextlib.contextmanager
    def naive(
        self, mistake: str, settings: Settings | None = None, **environment: str
    ) -> Iterator[subprocess.Popen[str]]:
        """Run the worker with that *mistake*; it is dead when the block ends."""
        process = subprocess.Popen(
            [sys.executable, NAIVE, mistake, self.name("work"), self.name("out")],
            env=os.environ | (settings or self.settings).to_environment() | environment,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            process.communicate(timeout=10)

    @contextlib.contextmanager
    def sending(self, rate: float, settings: Settings | None = None) -> Iterator[None]:
        """Publish *rate* jobs a second while the block lasts, each until the broker has taken it.

        What was refused or got no answer is sent again, with its id. *settings*: another way.
        """
        over = threading.Event()
        messages = (
            Message(f"{n}", id=f"{n}") for n in itertools.count(len(self.history.attempted))
        )

        def send() -> None:
            with Publisher(settings or self.settings, "sender") as publisher:
                waiting = deque()
                started, sent, deadline = time.monotonic(), 0, math.inf
                while not over.wait(1 / rate) or waiting:
                    if over.is_set():
                        deadline = min(deadline, time.monotonic() + LAST)
                    assert time.monotonic() < deadline, f"{len(waiting)} were never confirmed"
                    while not over.is_set() and sent < rate * (time.monotonic() - started):
                        message = next(messages)
                        self.history.attempted.add(message.id)
                        waiting.append(publisher.publish(message, "work"))
                        sent += 1
                    for _ in range(len(waiting)):
                        receipt = waiting.popleft()
                        if receipt.confirmed:
                            self.history.confirmed.add(receipt.message.id)
                            continue
                        if receipt.state != "waiting":
                            receipt = publisher.publish(receipt.message, "work")
                        waiting.append(receipt)

        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(send)
            try:
                yield
            finally:
                over.set()
                done.result(2 * LAST)

    @property
    def missing(self) -> set[str]:
        """The ids that the broker has taken and that have had no end so far."""
        history = self.history
        return history.confirmed - set(history.effects) - set(history.dead)

    def settle(self, timeout: float = 30.0) -> History:
        """Wait until each id has had its end, or time is up: the checker will tell."""
        deadline = time.monotonic() + timeout
        self.collect()
        while self.missing and time.monotonic() < deadline:
            self.collect()
        return self.history

    def rest(self, worker: Worker) -> None:
        """Wait until *worker* has acked all; what came again behind a result is acked as well."""
        open_queues = [name for name in self.queue.names() if name != self.queue.dead]

        def is_idle() -> bool:
            ready = any(each.messages for each in depths(open_queues, self.settings))
            return worker.statistics().consuming and not ready and worker.unacked == 0

        wait_for(lambda: is_idle() and is_idle())  # what the first look saw on its way has come

    def finish(self, timeout: float = 30.0) -> None:
        """Have a worker without faults do what is left."""
        with flow.work.worker(self.settings) as worker:
            self.settle(timeout)
            self.rest(worker)

    def close(self) -> None:
        if self._publisher is not None:
            self._publisher.close()

    def __enter__(self) -> Trial:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def collect(self) -> None:
        """Take results and dead letters into the history; a broker that is away has none."""
        with contextlib.suppress(WireError):
            # by time as well: where results keep coming, there is no pause between them
            self._take_ends(self.settings, idle=0.05, timeout=1.0)

    def observe(self, settings: Settings | None = None) -> History:
        """Empty the queues into the history: results, dead letters, and what is left."""
        settings = settings or self.settings
        self._take_ends(settings, idle=0.2, timeout=30.0)
        for message in drain("work", settings=settings, idle=0.2):
            self.history.left[message.id] += 1
        return self.history

    def _take_ends(self, settings: Settings, idle: float, timeout: float) -> None:
        history = self.history

        def note(message: Message) -> None:
            history.effects[str(message.data)] += 1
            history.names.setdefault(str(message.data), set()).add(message.id)

        def note_letter(letter: Message) -> None:
            history.dead[letter.id] = letter.reason
            self.on_letter(letter)

        # noted before they are acked: the broker may go in the midst of it
        often = {"settings": settings, "idle": idle, "timeout": timeout}
        drain("out", **often, on_message=note)
        drain(self.queue.dead, **often, on_message=note_letter)

    def _note(self, receipt) -> None:
        id = receipt.message.id
        try:
            receipt.wait(20)
            self.history.confirmed.add(id)
        except (MousetrapError, TimeoutError):
            kinds = {"refused": self.history.refused, "returned": self.history.refused}
            kinds.get(receipt.state, self.history.unknown).add(id)


def heals(trial: Trial, timeout: float) -> float:
    """Return how many seconds pass until there is a result of a job that is yet to be sent."""
    began, before = time.monotonic(), set(trial.history.attempted)
    wait_for(lambda: trial.collect() or trial.history.effects.keys() - before, timeout)
    return time.monotonic() - began


def sizes(quick: int, long: int) -> pytest.MarkDecorator:
    """How many trials: those of the quick tier, and in the long one the figure of the table."""
    return pytest.mark.parametrize("times", [quick, pytest.param(long, marks=LONG)])
