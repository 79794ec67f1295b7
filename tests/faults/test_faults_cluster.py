"""What happens to a cluster of three: a leader killed, a node cut off from its peers."""

from __future__ import annotations

import threading
import uuid

import pytest
from rig import brokers, flow
from rig.cluster import Balancer, Cluster
from rig.trial import LONG, Trial, heals
from support.waiting import wait_for

from mousetrap.broker import docker
from mousetrap.model.topology import Queue
from mousetrap.pytest_plugin import missing

WORK = Queue("work", flow.DELAYS)
RATE = 50  # messages a second


@pytest.fixture(scope="module")
def cluster():
    """Three nodes that run, see each other, and may be broken."""
    version = brokers.wanted()
    if docker.problem() or not brokers.is_here(version):
        missing(f"no Docker with rabbitmq:{version}-management")
    cluster = Cluster(version)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def front(cluster):
    """The one address that workers and senders know."""
    with Balancer(cluster.nodes) as front:
        yield front


@pytest.fixture
def classify(cluster):
    """The address of who counts: not by way of a node that is cut off, which may not answer."""
    with Balancer(cluster.nodes) as classify:
        yield classify


@pytest.fixture
def own(classify):
    """Settings for who counts."""
    return classify.settings.replace(
        namespace=f"rig-{uuid.uuid4().hex[:10]}", queue_type="quorum", queue_expiry=3600.0,
        confirm_timeout=10.0,  # seconds, after which a node that has lost its cluster is left
    )  # fmt: skip


@pytest.mark.fault("F26")
@pytest.mark.parametrize(("kills", "partitions"), [pytest.param(10, 6, marks=LONG)])
def test_cluster(own, cluster, front, classify, crew, tally, chance, kills, partitions):
    """The leader killed, or cut off, under quorum queues and load: nothing lost or made up.

    In the long tier only: three nodes take half a minute to start, and again after each fault.
    """
    through = own.replace(host=front.settings.host, port=front.settings.port)
    faults = ["kill"] * kills + ["partition"] * partitions
    chance.shuffle(faults)
    with Trial(own, WORK) as trial:
        workers = [crew.start(through, "--concurrency", "4") for _ in range(3)]
        with trial.sending(RATE, through):
            heals(trial, 60)
            for fault in faults:
                threading.Event().wait(chance.uniform(0.0, 3.0))  # the phase
                victim = cluster.leader(trial.name("work"), chance.choice(cluster.nodes))
                classify.avoided = {victim.name}
                if fault == "kill":
                    cluster.kill(victim)
                    threading.Event().wait(chance.uniform(0.0, 3.0))
                    tally.heals.append(heals(trial, 60))  # the two others go on
                    cluster.start()
                else:
                    cluster.cut_off(victim)
                    # RabbitMQ 4.3 does not tell its consumers there that they get nothing; should
                    # all of ours be there, they have to wait.
                    threading.Event().wait(chance.uniform(5.0, 20.0))
                    trial.collect()
                    cluster.join(victim)
                    tally.heals.append(heals(trial, 60))
                classify.avoided = set()
                heals(trial, 60)
        trial.settle(120)
        crew.kill_all()
        trial.finish(60)
        wait_for(lambda: all(each.code is not None for each in workers))

        assert all(worker.code == -9 for worker in workers)  # until we ended them
        tally.classify(trial.observe(), len(faults))
