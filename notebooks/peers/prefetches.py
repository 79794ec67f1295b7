"""Workers with one prefetch or another: their rates, and how they share slow messages.

Prototyped in ``notebooks/bench_prefetch.ipynb``.
"""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from mousetrap import Message, Publisher, Queue, Settings, Worker, declare
from mousetrap.job_queue import delete

FASTEST = 40_000  # messages a second; more than the workers of one process can do
TIMEOUT = 120.0  # seconds until all messages of a measurement are done

Handle = Callable[[int], None]


@dataclass(frozen=True)
class Rate:
    """What was measured of workers with one prefetch."""

    rate: float  # messages a second of all workers together
    early: float  # the same in the second half of the warm-up
    prefetch: int  # of the first worker, at the end


def mean_time(kind: str) -> float:
    """Return the seconds of a message of *kind*: its milliseconds, or ``mix``."""
    return 0.011 if kind == "mix" else float(kind) / 1000


def handler_of(kind: str) -> Handle:
    """Return a handler whose messages take so long; of ``mix``, one in a hundred takes 1 s."""
    if kind == "mix":
        numbers = itertools.count()
        return lambda _: _wait(1.0 if next(numbers) % 100 == 50 else 0.001)
    seconds = mean_time(kind)
    return (lambda _: _wait(seconds)) if seconds else (lambda _: None)


def measure(
    settings: Settings,
    kind: str,
    workers: int,
    prefetch: int | None,
    warm_up: float,
    seconds: float,
) -> Rate:
    """Let *workers* handle messages that wait already; count those done after the *warm_up*.

    *kind* is that of `handler_of`; *prefetch* None is the default of everybody.
    """
    mean = mean_time(kind)
    expected = min(FASTEST, workers / mean if mean else FASTEST)
    wanted = int(expected * (warm_up + seconds)) + 2000 * workers
    with _filled(settings, wanted) as queue, ExitStack() as stack:
        handlers = [handler_of(kind) for _ in range(workers)]
        started = [
            stack.enter_context(Worker(queue, each, settings, prefetch=prefetch))
            for each in handlers
        ]
        _until(lambda: _done(started) > 0)
        moments = [(time.monotonic(), _done(started))]
        for pause in (warm_up / 2, warm_up / 2, seconds):
            until = moments[-1][0] + pause
            _until(lambda until=until: time.monotonic() >= until or _done(started) == wanted)
            moments.append((time.monotonic(), _done(started)))
        found = started[0].statistics().prefetch
    if moments[2][1] == wanted:
        raise AssertionError(f"all {wanted} messages were done in the warm-up: raise FASTEST")
    _, early, rate = (
        (done - before) / (end - begin)
        for (begin, before), (end, done) in itertools.pairwise(moments)
    )
    return Rate(rate, early, found)


def shares(
    settings: Settings, seconds: float, prefetch: int | None, messages: int = 12
) -> list[int]:
    """Return how many of *messages* each of two workers handles; they take *seconds* each.

    The second worker starts when the first has taken what it wants.
    """
    with _filled(settings, messages) as queue, ExitStack() as stack:
        started = []
        for _ in range(2):
            worker = Worker(queue, lambda _: _wait(seconds), settings, prefetch=prefetch)
            started.append(stack.enter_context(worker))
            _until(lambda: started[0].statistics().received > 1)
        _until(lambda: _done(started) == messages)
        return [each.statistics().done for each in started]


def time_with_more_workers(
    settings: Settings, seconds: float, messages: int, most: int = 4
) -> tuple[float, float]:
    """Return the time in seconds in which workers handle *messages*, and the ideal one.

    A worker is added after each tenth of the messages, until there are *most*. In the ideal time
    all are busy until the last message is done.
    """
    with _filled(settings, messages) as queue, ExitStack() as stack:
        started: list[Worker] = []
        begins = []
        for number in range(1, most + 1):
            worker = Worker(queue, lambda _: _wait(seconds), settings)
            begins.append(time.monotonic())
            started.append(stack.enter_context(worker))
            _until(lambda number=number: _done(started) >= messages * number // 10)
        _until(lambda: _done(started) == messages)
        took = time.monotonic() - begins[0]
    late = sum(each - begins[0] for each in begins)
    return took, (messages * seconds + late) / most


@contextmanager
def _filled(settings: Settings, messages: int) -> Iterator[Queue]:
    """Yield a queue in which so many *messages* wait; delete it at the end."""
    queue = Queue(f"work-{uuid.uuid4().hex[:8]}")
    declare(queue, settings=settings)
    with Publisher(settings) as publisher:
        publisher.publish_until_confirmed((Message(n) for n in range(messages)), queue.name)
    try:
        yield queue
    finally:
        delete(queue, settings=settings)


def _done(workers: list[Worker]) -> int:
    return sum(each.statistics().done for each in workers)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {TIMEOUT:g} s")
        time.sleep(0.002)


def _wait(seconds: float) -> None:
    threading.Event().wait(seconds)
