"""One job at a time, more and more messages, and imports.

Prototyped in ``notebooks/bench_latency.ipynb``.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pika

from mousetrap import Message, Publisher, Worker, declare
from mousetrap.job_queue import delete
from mousetrap.settings import Settings
from peers.pika_blocking import consuming

CHUNK = 1000  # messages whose receipts are held at a time


def ping(settings: Settings, messages: int, size: int, *, is_safe: bool = False) -> list[float]:
    """Seconds that each message takes through two queues by bare pika, one after the other.

    If *is_safe*, every message is persistent and confirmed, and acked only after that.
    """
    names = [f"bench-{uuid.uuid4().hex[:8]}.{n}" for n in range(3)]
    parameters = pika.URLParameters(settings.to_environment()["RABBITMQ_URL"])
    connections = [pika.BlockingConnection(parameters) for _ in range(3)]
    channels = [each.channel() for each in connections]
    for name in names:
        channels[0].queue_declare(name, durable=True)
    if is_safe:
        for channel in channels:
            channel.confirm_delivery()
    properties = pika.BasicProperties(delivery_mode=2 if is_safe else 1)
    came = threading.Event()

    def echo(target: str | None) -> Any:
        def callback(channel: Any, method: Any, _: Any, body: bytes) -> None:
            if target is not None:
                channel.basic_publish("", target, body, properties)
            channel.basic_ack(method.delivery_tag)
            if target is None:
                came.set()

        return callback

    channels[1].basic_consume(names[0], echo(names[1]))
    channels[2].basic_consume(names[1], echo(names[2]))
    found = []
    body = b'"' + b"x" * (size - 2) + b'"'
    last = pika.BlockingConnection(parameters)
    sink = last.channel()
    sink.basic_consume(names[2], echo(None))
    with (
        consuming(connections[1], channels[1]),
        consuming(connections[2], channels[2]),
        consuming(last, sink),
    ):
        for _ in range(messages):
            started = time.perf_counter()
            came.clear()
            channels[0].basic_publish("", names[0], body, properties)
            assert came.wait(10), "a ping was lost"
            found.append(time.perf_counter() - started)
    for name in names:
        channels[0].queue_delete(name)
    connections[0].close()
    return found


def through_two_stages(settings: Settings, messages: int, size: int) -> list[float]:
    """Seconds from sending each job to handling its result, through two stages, one by one."""
    settings = settings.replace(namespace=f"bench-{uuid.uuid4().hex[:8]}")
    came = threading.Event()
    text = "x" * (size - 2)
    found = []

    def pass_on(data: str) -> str:
        return data

    def arrive(_: str) -> None:
        came.set()

    try:
        with (
            Worker("third", arrive, settings),
            Worker("second", pass_on, settings, writes="third"),
            Worker("first", pass_on, settings, writes="second"),
            Publisher(settings) as publisher,
        ):
            for _ in range(messages):
                started = time.perf_counter()
                came.clear()
                publisher.publish(Message(text), "first")
                assert came.wait(10), "a job was lost"
                found.append(time.perf_counter() - started)
    finally:
        delete("first", "second", "third", settings=settings)
    return found


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """The median and the 99th percentile, in milliseconds."""
    p99 = statistics.quantiles(seconds, n=100, method="inclusive")[98]
    return {"p50": round(1000 * statistics.median(seconds), 3), "p99": round(1000 * p99, 3)}


def scaling(
    settings: Settings, messages: int, size: int, window: int, prefetch: int
) -> dict[str, float]:
    """Publish and move so many messages in a fresh process: its time for each, its peak memory."""
    program = f"from peers.latency import flood; flood({messages}, {size}, {window}, {prefetch})"
    return json.loads(_python(program, settings.to_environment(), 3600.0))


def flood(messages: int, size: int, window: int, prefetch: int) -> None:
    """What `scaling` runs: print the figures as JSON."""
    settings = Settings.from_environment().replace(
        namespace=f"bench-{uuid.uuid4().hex[:8]}", max_in_flight=window
    )
    text = "x" * (size - 2)
    declare("first", "second", settings=settings)
    try:
        with (
            Worker("first", lambda data: data, settings, writes="second",
                   prefetch=prefetch) as worker,
            Publisher(settings) as publisher,
        ):  # fmt: skip
            publisher.publish(Message(text), "first")
            worker.wait_until(done=1, timeout=30)  # everything has started
            started = time.perf_counter()
            for begin in range(0, messages, CHUNK):
                number = min(CHUNK, messages - begin)
                publisher.publish_many((Message(text) for _ in range(number)), "first")
            worker.wait_until(done=1 + messages, timeout=3000)
            took = time.perf_counter() - started
    finally:
        delete("first", "second", settings=settings)
    print(json.dumps({
        "messages": messages,
        "microseconds": round(1e6 * took / messages, 1),
        "megabytes": round(_peak(), 1),
    }))  # fmt: skip


def _peak() -> float:
    """The most memory that this process ever had, in MB."""
    try:  # not ru_maxrss, which on Linux begins with what the parent had when it forked
        status = Path("/proc/self/status").read_text()
    except OSError:
        import resource  # not on Windows

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS: bytes
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def import_seconds(program: str) -> float:
    """Seconds that a fresh interpreter needs for *program*, its own start left out."""
    return float(_python(
        f"import time; started = time.perf_counter(); {program}; "
        f"print(time.perf_counter() - started)", {}, 60.0,
    ))  # fmt: skip


def _python(program: str, environment: dict[str, str], timeout: float) -> str:
    path = os.pathsep.join(sys.path)
    return subprocess.run(
        [sys.executable, "-c", program], env=os.environ | environment | {"PYTHONPATH": path},
        stdout=subprocess.PIPE, text=True, check=True, timeout=timeout,
    ).stdout  # fmt: skip
