"""One trial: jobs in, a worker that is a process of its own at work, and the history of each id."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from mousetrap.errors import MousetrapError
from mousetrap.job_queue import declare, drain, open_channel
from mousetrap.message import Message
from mousetrap.publisher import Publisher
from mousetrap.settings import Settings
from mousetrap.topology import Queue

from .checker import History

NAIVE = Path(__file__).with_name("naive.py")


class Trial:
    """A work queue, a queue for results, and who was seen where; *settings* go to the broker."""

    def __init__(self, settings: Settings, queue: Queue | None = None) -> None:
        self.settings = settings
        self.queue = queue or Queue("work", ())
        self.history = History()
        declare(self.queue, "out", settings=settings)

    def name(self, queue: str) -> str:
        return self.settings.topology.wire_name(queue)

    def send(self, ids: Iterable[str], *, transient: bool = False) -> None:
        """Publish a job for each id, and write down what the broker said to it."""
        ids = list(ids)
        self.history.attempted |= set(ids)
        if not transient:
            with Publisher(self.settings) as publisher:
                for receipt in publisher.publish_many((Message(id, id=id) for id in ids), "work"):
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

    def observe(self, settings: Settings | None = None) -> History:
        """Empty the queues into the history: results, dead letters, and what is left."""
        settings = settings or self.settings
        history = self.history
        for message in drain("out", settings=settings, idle=0.2):
            history.effects[str(message.data)] += 1
        for letter in drain(self.queue.dead, settings=settings, idle=0.2):
            history.dead[letter.id] = letter.reason
        for message in drain("work", settings=settings, idle=0.2):
            history.left[message.id] += 1
        return history

    def _note(self, receipt) -> None:
        id = receipt.message.id
        try:
            receipt.wait(20)
            self.history.confirmed.add(id)
        except (MousetrapError, TimeoutError):
            kinds = {"refused": self.history.refused, "returned": self.history.refused}
            kinds.get(receipt.outcome, self.history.unknown).add(id)


def wait_for(condition: Callable[[], object], timeout: float = 20.0) -> None:
    """Return when *condition* holds; asks 50 times a second."""
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        pause.wait(0.02)
