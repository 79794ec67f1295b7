"""The notebook check_pipeline passes on each kind of broker, and through a broker crash."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path

import pytest
from rig.brokers import compose_project

from mousetrap.broker import RabbitMQNode, docker
from mousetrap.broker.configuration import free_ports
from mousetrap.check import check
from mousetrap.errors import BrokerSetupError
from mousetrap.pytest_plugin import missing
from mousetrap.settings import Settings

CHECK = Path(__file__).parents[2] / "notebooks" / "check_pipeline.ipynb"
# Seconds after which RabbitMQ 3.10 can restart a quorum queue after SIGKILL: one that is younger
# stays without a leader (measured with one of half a second; 4.3 restarts it).
OLD_QUEUE = 6.0
PARAMETERS = {"jobs": 500, "fetch_workers": 2, "process_workers": 2, "failure_rate": 0.1}


@pytest.fixture
def container(request, monkeypatch):
    """Start a container of the requested image for this test."""
    if reason := docker.problem():
        missing(reason)
    monkeypatch.setenv("RABBITMQ_IMAGE", request.param)
    monkeypatch.setenv("MOUSETRAP_COMPOSE_PROJECT", compose_project())
    port, management = free_ports(2)
    monkeypatch.setenv("RABBITMQ_MANAGEMENT_PORT", str(management))
    try:
        yield docker.start(Settings(port=port), 120, print)
    except BrokerSetupError as error:
        if "image" not in str(error):
            raise
        missing(str(error))
    finally:
        docker.Docker().down(print)


def run(settings: Settings, tmp_path: Path, **parameters: object):
    """Run the check against the broker of *settings* and return the summary that it writes."""
    output = tmp_path / "check_pipeline.ipynb"
    environment = settings.to_environment() | {"MOUSETRAP_BROKER": "external"}
    result = check(CHECK, PARAMETERS | parameters, output=output, deadline=110,
                   environment=environment)  # fmt: skip
    return result.summary


def assert_accounted_for(summary: dict, jobs: int) -> None:
    """Assert that each job was confirmed, is done or dead, and that the dead have reasons."""
    assert summary["confirmed"] == summary["sent"] == jobs
    assert summary["lost"] == 0
    assert summary["done"] + summary["dead"] == jobs
    assert summary["dead"] >= 2  # the two that are not JSON
    assert sum(summary["reasons"].values()) == summary["dead"]
    assert all(reason and reason != "no reason given" for reason in summary["reasons"])


@pytest.mark.docker
@pytest.mark.parametrize(
    "container",
    [  # all other tests run on the newest version
        pytest.param("rabbitmq:4.3-management", marks=pytest.mark.long),
        "rabbitmq:3.10-management",
    ],
    indirect=True,
)
def test_pipeline_loses_nothing_in_docker(container, tmp_path):
    """Of 500 jobs with 2 + 2 workers, where one API call in ten fails, none is lost."""
    assert_accounted_for(run(container, tmp_path), 502)


@pytest.mark.local
def test_pipeline_loses_nothing_on_a_local_node(node: RabbitMQNode, tmp_path):
    """No job is lost on a private rabbitmq-server."""
    assert_accounted_for(run(node.settings, tmp_path), 502)


@pytest.mark.local
@pytest.mark.parametrize("how", [pytest.param("stop", marks=pytest.mark.long), "kill"])
def test_pipeline_survives_a_broker_restart(node: RabbitMQNode, tmp_path, how):
    """The broker stops, or is killed, while jobs wait, and starts again: no job is lost.

    The test fails if no jobs waited at that time, because it would show nothing.
    """
    waiting: list[int] = []

    def restart() -> None:
        pause = threading.Event()
        first_retry = math.inf  # when its queue was seen first
        for _ in range(600):
            lines = node.rabbitmqctl("list_queues", "-q", "name", "messages", "consumers")
            if "start_fetch.retry" in lines:
                first_retry = min(first_retry, time.monotonic())
            queues = {
                name.rpartition(".")[2]: (int(messages), int(consumers))
                for name, messages, consumers in map(str.split, lines.splitlines())
                if messages.isdigit()  # not the headings
            }
            messages, fetching = queues.get("start_fetch", (0, 0))
            _, processing = queues.get("data_processing", (0, 0))
            # a worker that starts while the broker is away ends with an error: not tested here
            is_old = time.monotonic() - first_retry > OLD_QUEUE
            if 50 <= messages <= 450 and fetching == processing == 2 and is_old:
                waiting.append(messages)
                getattr(node, how)()
                node.start()
                return
            pause.wait(0.1)

    breaker = threading.Thread(target=restart)
    breaker.start()
    # 500 fetches of 50 ms, one at a time in each of two workers: 12 seconds for the restart
    summary = run(node.settings, tmp_path, latency=0.05, concurrency=1)
    breaker.join(60)

    assert waiting, "the fault was not triggered"
    assert_accounted_for(summary, 502)
