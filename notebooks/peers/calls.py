"""Requests and answers, one after the other: by hand in plain pika, and by `mousetrap.call`.

Prototyped in ``notebooks/bench_call.ipynb``.
"""

from __future__ import annotations

import json
import statistics
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pika

from mousetrap import Queue, Worker, call, declare
from mousetrap.job_queue import delete
from mousetrap.settings import Settings

REPLY_TO = "amq.rabbitmq.reply-to"
TIMEOUT = 60.0  # seconds of a call

Ask = Callable[[int], int]


def double(n: int) -> int:
    """Return what both servers answer."""
    return 2 * n


@contextmanager
def by_hand(settings: Settings) -> Iterator[Ask]:
    """Yield a function that asks a server by direct reply-to; both are loops of plain pika."""
    queue, stopped = f"bench-{uuid.uuid4().hex[:8]}", threading.Event()
    declare(queue, settings=settings)
    name = settings.topology.wire_name(queue)
    parameters = pika.URLParameters(settings.to_environment()["RABBITMQ_URL"])

    def serve() -> None:
        def answer(channel: Any, method: Any, asked: Any, body: bytes) -> None:
            properties = pika.BasicProperties(correlation_id=asked.correlation_id)
            found = json.dumps(double(json.loads(body))).encode()
            channel.basic_publish("", asked.reply_to, found, properties)
            channel.basic_ack(method.delivery_tag)

        with pika.BlockingConnection(parameters) as connection:
            channel = connection.channel()
            channel.basic_consume(name, answer)
            while not stopped.is_set():
                connection.process_data_events(0.05)

    with ThreadPoolExecutor(1) as pool, pika.BlockingConnection(parameters) as connection:
        served = pool.submit(serve)
        channel, answers = connection.channel(), dict[str, bytes]()

        def keep(_: Any, __: Any, properties: Any, body: bytes) -> None:
            answers[properties.correlation_id] = body

        def ask(n: int) -> int:
            id, deadline = uuid.uuid4().hex, time.monotonic() + TIMEOUT
            properties = pika.BasicProperties(reply_to=REPLY_TO, correlation_id=id, delivery_mode=2)
            channel.basic_publish("", name, json.dumps(n).encode(), properties)
            while id not in answers and time.monotonic() < deadline:
                connection.process_data_events(TIMEOUT)
            return int(json.loads(answers.pop(id)))

        channel.basic_consume(REPLY_TO, keep, auto_ack=True)
        try:
            yield ask
        finally:
            stopped.set()
            served.result(TIMEOUT)
    delete(queue, settings=settings)


@contextmanager
def by_call(settings: Settings, concurrency: int = 1) -> Iterator[Ask]:
    """Yield a function that asks a worker by `mousetrap.call`."""
    queue = Queue(f"bench-{uuid.uuid4().hex[:8]}")
    with Worker(queue, double, settings, concurrency=concurrency):
        yield lambda n: call(queue, n, TIMEOUT, settings)
    delete(queue, settings=settings)


def seconds_of_each(ask: Ask, number: int) -> list[float]:
    """Return the seconds that each of *number* requests took; each answer is checked."""
    found = []
    for n in range(number):
        started = time.perf_counter()
        assert ask(n) == 2 * n
        found.append(time.perf_counter() - started)
    return found


def wrong_answers(ask: Ask, number: int, threads: int) -> int:
    """Ask *number* times from so many *threads*; return how many answers are not one's own."""
    with ThreadPoolExecutor(threads) as pool:
        return sum(answer != 2 * n for n, answer in enumerate(pool.map(ask, range(number))))


def median(found: list[float]) -> float:
    """Return the median in milliseconds."""
    return round(1000 * statistics.median(found), 3)
