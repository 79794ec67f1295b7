"""Faults of a cluster of three nodes: a leader killed, a node cut off from the others."""

from __future__ import annotations

import threading
import uuid

import pytest
from rig import brokers, work_stage
from rig.cluster import Cluster, LoadBalancer
from rig.trial import LONG, Trial, seconds_until_result
from support.waiting import wait_for

from mousetrap.broker import docker
from mousetrap.model.topology import Queue
from mousetrap.pytest_plugin import missing

WORK = Queue("work", work_stage.DELAYS)
RATE = 50  # messages a second


@pytest.fixture(scope="module")
def cluster():
    """Three running nodes that form a cluster; tests may kill them."""
    version = brokers.requested_version()
    if docker.problem() or not brokers.has_image(version):
        missing(f"no Docker with rabbitmq:{version}-management")
    cluster = Cluster(version)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def front(cluster):
    """The one address that workers and senders use."""
    with LoadBalancer(cluster.nodes) as front:
        yield front


@pytest.fixture
def observer(cluster):
    """The address that the test uses: it avoids a node that is cut off, which may not answer."""
    with LoadBalancer(cluster.nodes) as observer:
        yield observer


@pytest.fixture
def rabbit_settings(observer):
    """Settings for what the test itself publishes and reads."""
    return observer.settings.replace(
        namespace=f"rig-{uuid.uuid4().hex[:10]}", queue_type="quorum", queue_expiry=3600.0,
        confirm_timeout=10.0,  # seconds, after which a node that has lost its cluster is left
    )  # fmt: skip


@pytest.mark.fault("F26")
@pytest.mark.parametrize(("kills", "partitions"), [pytest.param(10, 6, marks=LONG)])
def test_cluster(
    rabbit_settings,
    cluster,
    front,
    observer,
    worker_pool,
    fault_row,
    seeded_random,
    kills,
    partitions,
):
    """With quorum queues under load, the leader is killed or cut off: no message is lost.

    In the long tier only: three nodes take half a minute to start, and again after each fault.
    """
    through = rabbit_settings.replace(host=front.settings.host, port=front.settings.port)
    faults = ["kill"] * kills + ["partition"] * partitions
    seeded_random.shuffle(faults)
    with Trial(rabbit_settings, WORK) as trial:
        workers = [worker_pool.start(through, "--concurrency", "4") for _ in range(3)]
        with trial.sending(RATE, through):
            seconds_until_result(trial, 60)
            for fault in faults:
                threading.Event().wait(seeded_random.uniform(0.0, 3.0))  # at any phase
                victim = cluster.leader(
                    trial.wire_name("work"), seeded_random.choice(cluster.nodes)
                )
                observer.avoided = {victim.name}
                if fault == "kill":
                    cluster.kill(victim)
                    threading.Event().wait(seeded_random.uniform(0.0, 3.0))
                    fault_row.heal_seconds.append(
                        seconds_until_result(trial, 60)
                    )  # the two other nodes go on
                    cluster.start()
                else:
                    cluster.cut_off(victim)
                    # On RabbitMQ 4.3 consumers of that node get neither messages nor an error; if
                    # all of ours are there, they have to wait.
                    threading.Event().wait(seeded_random.uniform(5.0, 20.0))
                    trial.collect()
                    cluster.join(victim)
                    fault_row.heal_seconds.append(seconds_until_result(trial, 60))
                observer.avoided = set()
                seconds_until_result(trial, 60)
        trial.settle(120)
        worker_pool.kill_all()
        trial.finish(60)
        wait_for(lambda: all(each.code is not None for each in workers))

        assert all(worker.code == -9 for worker in workers)  # when the test ended them
        fault_row.add(trial.drain_queues(), len(faults))
