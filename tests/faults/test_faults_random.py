"""All faults at random and overlapping, for seconds, minutes or hours.

`RIG_MINUTES=120 pytest -m long tests/faults/test_faults_random.py` is the soak test.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import numpy as np
import pytest
from rig import work_stage
from rig.trial import Trial

from mousetrap.fault_injection.proxy import Proxy
from mousetrap.model.topology import Queue

WORK = Queue("work", work_stage.DELAYS)
RATE = 50  # messages a second
MINUTES = float(os.environ.get("RIG_MINUTES", "10"))
SOAK = 30.0  # minutes; a shorter run shows no trend of memory
SLOPE = 1.0  # MB an hour at most, of a worker that is never killed
PAGE = os.sysconf("SC_PAGE_SIZE") / 1e6  # MB


class RandomFaults:
    """Injects random faults; those of one group follow each other, those of two groups overlap."""

    def __init__(self, proxy, trial, rabbit, worker_pool, seeded_random):
        self._proxy, self._trial, self._rabbit, self._worker_pool = (
            proxy,
            trial,
            rabbit,
            worker_pool,
        )
        self._randoms = {  # one for each thread
            "connections": Random(seeded_random.random()),
            "workers": Random(seeded_random.random()),
            "broker": Random(seeded_random.random()),
        }
        self._kinds = {
            "connections": (
                self.cut,
                self.lose,
                self.delay,
                self.slice,
                self.half_open,
                self.repeat,
            ),
            "workers": (self.kill, self.stop),
            "broker": (self.crash, self.alarm, self.fill),
        }
        self._workers = [self._start() for _ in range(2)]
        self._limit({})
        self.triggered = Counter()
        self.stopped = threading.Event()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stopped.set()  # also after an exception: else the threads in `inject` never end

    def inject(self, kind, pause):
        """Inject faults of a group, up to *pause* seconds apart, until the block ends."""
        seeded_random = self._randoms[kind]
        while not self.stopped.wait(seeded_random.uniform(0.0, pause)):
            fault = seeded_random.choice(self._kinds[kind])
            if fault(seeded_random) is not False:
                self.triggered[fault.__name__] += 1

    def _wait(self, seeded_random, longest):
        self.stopped.wait(seeded_random.uniform(0.2, longest))

    # connections

    def cut(self, _):
        return self._proxy.cut() > 0

    def lose(self, seeded_random):
        """Cut a connection with an ack or a confirm."""
        direction = seeded_random.choice(["to broker", "from broker"])
        step = self._proxy.at("Basic.Ack", direction, number=seeded_random.randint(1, 9))
        return self._happens(step)

    def repeat(self, seeded_random):
        """Duplicate one message."""
        return self._happens(self._proxy.replay(number=seeded_random.randint(1, 9)))

    def _happens(self, step):
        if not step.triggered.wait(2):
            self._proxy.forget(step)
        return step.triggered.is_set()

    def delay(self, seeded_random):
        self._proxy.delay(seeded_random.uniform(0.01, 0.2))
        self._wait(seeded_random, 2)
        self._proxy.delay(0)

    def slice(self, seeded_random):
        self._proxy.slice(seeded_random.choice([1, 7, 100]))
        self._wait(seeded_random, 2)
        self._proxy.slice(0)

    def half_open(self, seeded_random):
        """Discard what is sent for some time, then cut the connections."""
        self._proxy.hold(*seeded_random.choice([["to broker"], ["from broker"], []]))
        self._wait(seeded_random, 2)
        self._proxy.cut()
        self._proxy.release()

    # workers

    def _start(self):
        return self._worker_pool.start(self._proxy.settings, "--concurrency", "4", "--grace", "2")

    def kill(self, seeded_random):
        return self._end(seeded_random, signal.SIGKILL)

    def stop(self, seeded_random):
        return self._end(seeded_random, signal.SIGTERM)

    def _end(self, seeded_random, number):
        n = seeded_random.randrange(len(self._workers))
        self._workers[n].kill(number)
        self._workers[n].wait(30)
        self._workers[n] = self._start()

    # the broker

    def crash(self, _):
        self._rabbit.kill()
        self._rabbit.start()

    def alarm(self, seeded_random):
        self._rabbit.rabbitmqctl("set_vm_memory_high_watermark", "0")
        self._wait(seeded_random, 3)
        self._rabbit.rabbitmqctl("set_vm_memory_high_watermark", "0.6")

    def fill(self, seeded_random):
        """Limit the queue of the results to one message, so that it refuses."""
        self._limit({"max-length": 1})
        self._wait(seeded_random, 3)
        self._limit({})

    def _limit(self, limits):
        # always with overflow: if both are set at once, a queue first drops what exceeds the limit
        policy = json.dumps({"overflow": "reject-publish", **limits})
        name = f"^{self._trial.wire_name('out')}$"
        self._rabbit.rabbitmqctl("set_policy", "full", name, policy, "--apply-to", "queues")


@pytest.mark.fault("F27")
@pytest.mark.parametrize(
    "minutes",
    [0.3, pytest.param(MINUTES, marks=[pytest.mark.long, pytest.mark.timeout(90 * MINUTES + 600)])],
)
def test_all_at_random(rabbit_settings, rabbit, worker_pool, fault_row, seeded_random, minutes):
    """Under random faults of connections, workers and broker all messages are done.

    A worker that is never killed does not grow.
    """
    with Proxy(rabbit_settings) as proxy, Trial(rabbit_settings, WORK) as trial:
        survivor = worker_pool.start(proxy.settings, "--concurrency", "4")
        random_faults = RandomFaults(proxy, trial, rabbit, worker_pool, seeded_random)
        memory = []
        with ThreadPoolExecutor(3) as pool, random_faults, trial.sending(RATE, proxy.settings):
            injectors = [pool.submit(random_faults.inject, "connections", 2.0),
                      pool.submit(random_faults.inject, "workers", 6.0),
                      pool.submit(random_faults.inject, "broker", 8.0)]  # fmt: skip
            until = time.monotonic() + 60 * minutes
            while time.monotonic() < until and not any(each.done() for each in injectors):
                trial.collect()
                memory.append((time.monotonic(), resident(survivor.pid)))
                random_faults.stopped.wait(0.5)
            random_faults.stopped.set()
            for each in injectors:
                each.result(120)
        trial.settle(60)
        rabbit.rabbitmqctl("clear_policy", "full")
        assert survivor.is_running
        worker_pool.kill_all()
        trial.finish()
        fault_row.add(trial.drain_queues(), random_faults.triggered.total())

    assert not trial.history.dead, "random faults must not dead-letter a message"
    print(f"{dict(random_faults.triggered)}; {slope(memory):+.2f} MB/h")
    if minutes >= SOAK:
        assert slope(memory) < SLOPE


def resident(pid):
    """Return the megabytes of memory that a process uses now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def slope(memory):
    """Return the growth in megabytes an hour, over the later two thirds of the measurements."""
    times, sizes = zip(*memory[len(memory) // 3 :], strict=True)
    return 3600 * np.polyfit(np.array(times) - times[0], sizes, 1)[0]
