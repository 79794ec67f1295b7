"""One trial: send jobs to a worker, inject faults, and record the history of each message id."""

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

from . import work_stage
from .checker import History

LONG = [pytest.mark.long, pytest.mark.timeout(1800)]
CONFIRMS_TIMEOUT = 60.0  # seconds for the last confirms
TUTORIAL_LOOP = Path(__file__).with_name("tutorial_loop.py")


class Trial:
    """A work queue, a queue for its results, and the history of each message id.

    *settings* connect to the broker directly, without the proxy that injects faults.
    *declares_results*: the worker finds its queue for the results; otherwise it declares it.
    """

    def __init__(
        self, settings: Settings, queue: Queue | None = None, *, declares_results: bool = True
    ) -> None:
        self.settings = settings
        self.queue = queue or Queue("work", ())
        self.history = History()
        self.on_dead_letter: Callable[[Message], object] = lambda _: None
        self._publisher: Publisher | None = None
        # what a worker declares at its start; retry and dead queues come when a message needs them
        results = ["out"] if declares_results else []
        declare(self.queue.name, self.queue.quarantine, *results, settings=settings)

    def wire_name(self, queue: str) -> str:
        return self.settings.topology.wire_name(queue)

    def send(self, ids: Iterable[str], *, transient: bool = False) -> None:
        """Publish a job for each id, and record what the broker answers.

        *transient*: as the tutorial publishes, without confirms and not persistent.
        """
        ids = list(ids)
        self.history.attempted |= set(ids)
        if not transient:
            if self._publisher is None:
                self._publisher = Publisher(self.settings).open()
            messages = (Message(id, id=id) for id in ids)
            for receipt in self._publisher.publish_many(messages, "work"):
                self._note(receipt)
            return
        with open_channel(self.settings) as channel:
            for id in ids:
                channel.basic_publish("", self.wire_name("work"), json.dumps(id).encode())
                self.history.confirmed.add(id)

    def send_raw(self, body: bytes, id: str) -> None:
        """Publish *body* as it is, for one id."""
        self.history.attempted.add(id)
        with Publisher(self.settings) as publisher:
            self._note(publisher.publish(Message(body=body, id=id), "work"))

    @contextlib.contextmanager
    def tutorial_loop(
        self, mistake: str, settings: Settings | None = None, **environment: str
    ) -> Iterator[subprocess.Popen[str]]:
        """Run the loop of the tutorial with *mistake* in a process, until the block ends."""
        process = subprocess.Popen(
            [sys.executable, TUTORIAL_LOOP, mistake, self.wire_name("work"), self.wire_name("out")],
            env=os.environ | (settings or self.settings).to_environment() | environment,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            process.communicate(timeout=10)

    @contextlib.contextmanager
    def sending(
        self,
        rate: float,
        settings: Settings | None = None,
        id_of: Callable[[int], str] = str,
    ) -> Iterator[None]:
        """Publish *rate* jobs a second while the block lasts, each until the broker confirms it.

        A job that was refused or got no answer is published again with the same id. *settings*:
        for the connection, if not those of the trial. *id_of* names the job with a number.
        """
        stopped = threading.Event()
        ids = map(id_of, itertools.count(len(self.history.attempted)))
        messages = (Message(id, id=id) for id in ids)

        def send() -> None:
            with Publisher(settings or self.settings, "sender") as publisher:
                waiting = deque()
                started, sent, deadline = time.monotonic(), 0, math.inf
                while not stopped.wait(1 / rate) or waiting:
                    if stopped.is_set():
                        deadline = min(deadline, time.monotonic() + CONFIRMS_TIMEOUT)
                    assert time.monotonic() < deadline, f"{len(waiting)} were never confirmed"
                    while not stopped.is_set() and sent < rate * (time.monotonic() - started):
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
                stopped.set()
                done.result(2 * CONFIRMS_TIMEOUT)

    @property
    def missing(self) -> set[str]:
        """The ids that were confirmed and have neither a result nor a dead letter so far."""
        history = self.history
        return history.confirmed - set(history.effects) - set(history.dead)

    def settle(self, timeout: float = 30.0) -> History:
        """Wait until no id is missing, or *timeout* seconds: the checker finds what is missing."""
        deadline = time.monotonic() + timeout
        self.collect()
        while self.missing and time.monotonic() < deadline:
            self.collect()
        return self.history

    def wait_until_idle(self, worker: Worker) -> None:
        """Wait until *worker* has acked everything, redelivered messages as well."""
        open_queues = [name for name in self.queue.names() if name != self.queue.dead]

        def is_idle() -> bool:
            ready = any(each.messages for each in depths(open_queues, self.settings) if each)
            return worker.statistics().consuming and not ready and worker.unacked == 0

        wait_for(lambda: is_idle() and is_idle())  # twice: what was in transit at first has arrived

    def finish(self, timeout: float = 30.0) -> None:
        """Let a worker without faults handle the messages that are left."""
        with work_stage.work.replace(queue=self.queue).worker(self.settings) as worker:
            self.settle(timeout)
            self.wait_until_idle(worker)

    def close(self) -> None:
        if self._publisher is not None:
            self._publisher.close()

    def __enter__(self) -> Trial:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def collect(self) -> None:
        """Move results and dead letters into the history; if the broker is away, do nothing."""
        with contextlib.suppress(WireError):
            # a time limit, too: while results keep arriving the queue is never idle
            self._drain_outputs(self.settings, idle=0.05, timeout=1.0)

    def drain_queues(self, settings: Settings | None = None) -> History:
        """Move everything in the queues into the history: results, dead letters, messages left."""
        settings = settings or self.settings
        self._drain_outputs(settings, idle=0.2, timeout=30.0)
        for message in drain("work", settings=settings, idle=0.2):
            self.history.left[message.id] += 1
        return self.history

    def _drain_outputs(self, settings: Settings, idle: float, timeout: float) -> None:
        history = self.history

        def note(message: Message) -> None:
            history.effects[str(message.data)] += 1
            history.names.setdefault(str(message.data), set()).add(message.id)

        def note_dead_letter(dead_letter: Message) -> None:
            history.dead[dead_letter.id] = dead_letter.reason
            self.on_dead_letter(dead_letter)

        # recorded before they are acked: the broker may be killed between
        options = {"settings": settings, "idle": idle, "timeout": timeout}
        drain("out", **options, on_message=note)
        drain(self.queue.dead, **options, on_message=note_dead_letter)

    def _note(self, receipt) -> None:
        id = receipt.message.id
        try:
            receipt.wait(20)
            self.history.confirmed.add(id)
        except (MousetrapError, TimeoutError):
            kinds = {"refused": self.history.refused, "returned": self.history.refused}
            kinds.get(receipt.state, self.history.unknown).add(id)


def seconds_until_result(trial: Trial, timeout: float) -> float:
    """Return how many seconds pass until a job that is sent from now on has a result."""
    began, before = time.monotonic(), set(trial.history.attempted)
    wait_for(lambda: trial.collect() or trial.history.effects.keys() - before, timeout)
    return time.monotonic() - began


def trial_counts(quick: int, long: int) -> pytest.MarkDecorator:
    """Parametrize a test with its number of trials, in every run and in the long tier."""
    return pytest.mark.parametrize("times", [quick, pytest.param(long, marks=LONG)])
