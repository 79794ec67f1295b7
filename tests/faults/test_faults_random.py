"""All faults at random and overlapping, for seconds, minutes or hours.

`RIG_MINUTES=120 pytest -m long tests/faults/test_faults_random.py` is the soak test.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import numpy as np
import pytest
from rig import scenes
from rig.random_faults import OPTIONS, WORK, RandomFaults, job_id
from rig.trial import Trial
from support.postgres import Postgres

from mousetrap.fault_injection.proxy import Proxy

RATE = 50  # messages a second
MINUTES = float(os.environ.get("RIG_MINUTES", "10"))
SOAK = 30.0  # minutes; a shorter run shows no trend of memory
SLOPE = 1.0  # MB an hour at most, of a worker that is never killed
HELD_BACK = 400.0  # seconds; RabbitMQ sends what a full queue refused within 360 s of room in it
PAGE = os.sysconf("SC_PAGE_SIZE") / 1e6  # MB


def play(random_faults, place, played):
    """Play the scenes in a random order until the faults end; count their messages in *played*."""
    while not random_faults.stopped.wait(place.random.uniform(0, 2)):
        scene = place.random.choice(scenes.SCENES)
        played[scene.__name__] += scene(place.moved())


@pytest.mark.fault("F27")
@pytest.mark.parametrize(
    "minutes",
    [0.3, pytest.param(MINUTES, marks=[pytest.mark.long, pytest.mark.timeout(90 * MINUTES + 600)])],
)
def test_all_at_random(
    rabbit_settings, rabbit, worker_pool, fault_row, seeded_random, minutes, tmp_path, monkeypatch
):
    """Under random faults of connections, workers and broker all messages are done.

    Beside them runs, scripts, commands and a sink lose nothing, and `sweep` takes no live run for a
    dead one. A worker that is never killed does not grow.
    """
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))  # no other run of this machine is swept
    played, swept = Counter(), set()
    with (
        Proxy(rabbit_settings) as proxy,
        Trial(rabbit_settings, WORK) as trial,
        Postgres() as postgres,
        scenes.sweeping(rabbit_settings, swept),
    ):
        survivor = worker_pool.start(proxy.settings, *OPTIONS)
        random_faults = RandomFaults(proxy, trial, rabbit, worker_pool, seeded_random)
        place = scenes.Place(
            proxy.settings, rabbit_settings, Random(seeded_random.random()), postgres
        )
        memory = []
        with (
            ThreadPoolExecutor(4) as pool,
            random_faults,
            trial.sending(RATE, proxy.settings, job_id),
        ):
            tasks = [pool.submit(random_faults.inject, "connections", 2.0),
                     pool.submit(random_faults.inject, "workers", 6.0),
                     pool.submit(random_faults.inject, "broker", 8.0),
                     pool.submit(play, random_faults, place, played)]  # fmt: skip
            until = time.monotonic() + 60 * minutes
            while time.monotonic() < until and not any(each.done() for each in tasks):
                trial.collect()
                memory.append((time.monotonic(), resident(survivor.pid)))
                random_faults.stopped.wait(0.5)
            random_faults.stopped.set()
            for each in tasks:
                each.result(2 * HELD_BACK)
        trial.settle(HELD_BACK)
        random_faults.clear()
        assert survivor.is_running
        worker_pool.kill_all()
        trial.finish()
        fault_row.add(trial.drain_queues(), random_faults.triggered.total())
    fault_row.messages += played.total()

    print(f"{dict(random_faults.triggered)}; {dict(played)}; {slope(memory):+.2f} MB/h")
    assert not trial.history.dead, "random faults must not dead-letter a message"
    assert not swept & place.live_runs, "a live run was taken for a dead one"
    if minutes >= SOAK:
        assert swept >= place.dead_runs
        assert slope(memory) < SLOPE


def resident(pid):
    """Return the megabytes of memory that a process uses now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def slope(memory):
    """Return the growth in megabytes an hour, over the later two thirds of the measurements."""
    times, sizes = zip(*memory[len(memory) // 3 :], strict=True)
    return 3600 * np.polyfit(np.array(times) - times[0], sizes, 1)[0]
