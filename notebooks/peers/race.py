"""Peers side by side: each in a process of its own, in turn, watched by a witness of our own.

Prototyped in ``notebooks/bench_publish.ipynb``.
"""

from __future__ import annotations

import json
import os
import queue
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pika

from mousetrap.settings import Settings
from peers import NAMES, peer_of

FOLDER = Path(__file__).parents[1]
WARM_UP = 10  # messages whose time is not counted
POLL_INTERVAL = 0.005  # seconds between two depth queries


class Racer:
    """One peer's process; *name* is that of its module."""

    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        self.peer = peer_of(name)
        self._answers: queue.Queue[str] = queue.Queue()
        path = os.pathsep.join([str(FOLDER), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "peers", name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | settings.to_environment() | {"PYTHONPATH": path},
        )  # fmt: skip
        threading.Thread(target=self._read, daemon=True).start()
        self._write({"do": "open"})  # all import at the same time; `ready` waits

    def ready(self) -> None:
        """Return when its library is imported."""
        self._answer(60.0)

    def ask(self, do: str, timeout: float = 120.0, **wish: Any) -> dict[str, Any]:
        """Make it do something; RuntimeError with its traceback if it fails."""
        self.begin(do, **wish)
        return self.end(timeout)

    def begin(self, do: str, **wish: Any) -> None:
        """Make it begin something, and do not wait."""
        self._write({"do": do} | wish)

    def end(self, timeout: float) -> dict[str, Any]:
        """Return the answer to what was begun; RuntimeError with its traceback if it fails."""
        return self._answer(timeout)

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)

    def _write(self, wish: dict[str, Any]) -> None:
        self._process.stdin.write(json.dumps(wish) + "\n")
        self._process.stdin.flush()

    def _read(self) -> None:
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put('{"error": "its process ended"}')

    def _answer(self, timeout: float) -> dict[str, Any]:
        try:
            answer = json.loads(self._answers.get(timeout=timeout))
        except queue.Empty:
            raise TimeoutError(f"{self.name} did not answer within {timeout:g} s") from None
        if "error" in answer:
            raise RuntimeError(f"{self.name}: {answer['error']}")
        return answer


class Race:
    """The peers of *names* that are installed; *missing* says which are not.

    Use it as a context manager: afterwards no process and no queue of it is left.
    """

    def __init__(self, settings: Settings, names: Iterable[str] = NAMES) -> None:
        self.settings = settings.replace(namespace="")  # names on the wire are made here
        self.prefix = f"bench-{uuid.uuid4().hex[:8]}"
        self.missing: list[str] = []
        self.racers: dict[str, Racer] = {}
        self._names = list(names)
        self._queues: set[str] = set()

    def __enter__(self) -> Race:
        self._connection = pika.BlockingConnection(
            pika.URLParameters(self.settings.to_environment()["RABBITMQ_URL"] + "?heartbeat=0")
        )
        self._channel = self._connection.channel()
        for name in self._names:
            try:
                self.racers[name] = Racer(name, self.settings)
            except ImportError:
                self.missing.append(name)
        for racer in self.racers.values():
            racer.ready()
        return self

    def __exit__(self, *_: object) -> None:
        for racer in self.racers.values():
            racer.close()
        channel = self._connection.channel()
        for each in self._queues:
            channel.queue_delete(each)
        self._connection.close()

    def publish(self, name: str, messages: int, size: int, window: int | None) -> float:
        """Confirmed messages a second; all of them are in the queue afterwards.

        *window* publishes may wait for their confirm; None: as many as the library lets by default.
        """
        racer = self.racers[name]
        share = racer.peer.share if window else racer.peer.default_share
        messages = max(2, round(messages * share))
        place = self._fresh(name, "published")
        found = racer.ask("publish", queue=place, body=body_of(size), messages=messages,
                          window=window)  # fmt: skip
        self._await(name, place, messages)
        self._drop(place)
        # dramatiq and Celery open their connection with the first, before they start the clock
        return messages / found["seconds"]

    def hop(
        self, name: str, messages: int, size: int, prefetch: int | None, handlers: int, window: int
    ) -> float:
        """Messages a second from one queue to the next, by what arrives there.

        The clock runs from the first that the witness sees to the last, so no start-up counts.
        Afterwards the worker is stopped and the source is empty: every message was acked. With None
        for *prefetch* it is what the library has by default.
        """
        racer = self.racers[name]
        messages = max(2, round(messages * racer.peer.share))
        source, target = self._fresh(name, "source"), self._fresh(name, "target")
        racer.ask("publish", queue=source, body=body_of(size), messages=messages, window=window)
        racer.ask("start", source=source, target=target, prefetch=prefetch, handlers=handlers)
        rate = self._watch(name, target, messages)
        racer.ask("stop")
        left = self._channel.queue_declare(source, passive=True).method.message_count
        assert left == 0, f"{name}: {left} of {messages} were not acked"
        self._drop(source, target)
        return rate

    def latencies(self, name: str, messages: int, size: int) -> list[float]:
        """Seconds of one message at a time through a hop with the library's defaults.

        From the publish to the arrival of the output at the witness. The first ten are not counted.
        """
        racer = self.racers[name]
        source, target = self._fresh(name, "source"), self._fresh(name, "target")
        racer.ask("publish", queue=source, body=body_of(size), messages=2, window=1)
        self._await(name, source, 2)
        channel = self._connection.channel()
        # the library's own message, with its envelope, is published again and again
        _, properties, body = channel.basic_get(source, auto_ack=True)
        racer.ask("start", source=source, target=target, prefetch=None, handlers=1)
        arrived: list[object] = []
        channel.basic_consume(target, lambda *each: arrived.append(each), auto_ack=True)
        found: list[float] = []
        for n in range(1 + WARM_UP + messages):
            begun = time.perf_counter()
            if n:  # the first is in the queue
                channel.basic_publish("", source, body, properties)
            while len(arrived) <= n:
                self._connection.process_data_events(10.0)
                late = time.perf_counter() - begun
                assert late < 60, f"{name}: no output within {late:.0f} s"
            found.append(time.perf_counter() - begun)
        channel.close()
        racer.ask("stop")
        self._drop(source, target)
        return found[1 + WARM_UP :]

    def _await(self, name: str, place: str, messages: int) -> None:
        """Return when all are in the queue; unconfirmed ones may arrive late."""
        deadline = time.monotonic() + 10
        while True:
            arrived = self._channel.queue_declare(place, passive=True).method.message_count
            if arrived == messages:
                return
            assert arrived < messages, f"{name}: {arrived} of {messages} arrived"
            assert time.monotonic() < deadline, f"{name}: {arrived} of {messages} within 10 s"
            self._connection.sleep(POLL_INTERVAL)

    def _watch(self, name: str, target: str, messages: int) -> float:
        deadline = time.monotonic() + 120
        first = started = 0.0
        while True:
            arrived = self._channel.queue_declare(target, passive=True).method.message_count
            now = time.perf_counter()
            if arrived >= messages:
                assert arrived == messages, f"{name}: {arrived} of {messages} arrived"
                if not first:  # too few to be seen on their way
                    return messages / POLL_INTERVAL
                return (messages - first) / (now - started)
            if arrived and not first:
                first, started = arrived, now
            assert time.monotonic() < deadline, f"{name}: {arrived} of {messages} within 120 s"
            self._connection.sleep(POLL_INTERVAL)

    def _fresh(self, name: str, word: str) -> str:
        place = f"{self.prefix}.{name}.{word}.{len(self._queues)}"
        self._queues |= {place, f"{place}.DQ", f"{place}.XQ"}  # dramatiq puts two beside each
        if name != "dramatiq":  # which wants arguments of its own
            self._channel.queue_declare(place, durable=True)
        return place

    def _drop(self, *places: str) -> None:
        for place in places:
            for each in (place, f"{place}.DQ", f"{place}.XQ"):
                self._channel.queue_delete(each)


def summary(found: Sequence[float]) -> dict[str, float]:
    """Median, least and most of what was found in several rounds."""
    return {"median": round(statistics.median(found), 3), "least": round(min(found), 3),
            "most": round(max(found), 3), "rounds": len(found)}  # fmt: skip


def save(figures: dict[str, Any], name: str) -> Path:
    """Keep *figures* as JSON beside the executed copies, in ``_build``; return where.

    With ``BENCH_FIGURES`` in the environment, in that folder.
    """
    folder = Path(os.environ.get("BENCH_FIGURES", FOLDER / "_build"))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return path


def body_of(size: int) -> str:
    """Return a JSON text of *size* bytes."""
    return '"' + "x" * (size - 2) + '"'
