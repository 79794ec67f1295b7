"""The whole flow, proved by the notebook itself, on each broker and through a crash."""

from __future__ import annotations

import threading
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
PARAMETERS = {"jobs": 500, "fetch_workers": 2, "process_workers": 2, "failure_rate": 0.1}


@pytest.fixture
def container(request, monkeypatch):
    """A container of its own, of the image asked for."""
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
    """Run the check against the broker of *settings* and return the record it leaves."""
    output = tmp_path / "check_pipeline.ipynb"
    environment = settings.to_environment() | {"MOUSETRAP_BROKER": "external"}
    result = check(CHECK, PARAMETERS | parameters, output=output, deadline=110,
                   environment=environment)  # fmt: skip
    return result.summary


def assert_accounted_for(summary: dict, jobs: int) -> None:
    """Every job of ours was confirmed and has an end; the dead say why."""
    assert summary["confirmed"] == summary["sent"] == jobs
    assert summary["lost"] == 0
    assert summary["done"] + summary["dead"] == jobs
    assert summary["dead"] >= 2  # the two that are no JSON
    assert sum(summary["reasons"].values()) == summary["dead"]
    assert all(reason and reason != "no reason given" for reason in summary["reasons"])


@pytest.mark.docker
@pytest.mark.parametrize(
    "container",
    [  # the newest is what all the other tests run on
        pytest.param("rabbitmq:4.3-management", marks=pytest.mark.long),
        "rabbitmq:3.10-management",
    ],
    indirect=True,
)
def test_pipeline_loses_nothing_in_docker(container, tmp_path):
    """500 jobs, 2 + 2 workers, one API call in ten fails: lost 0, the dead have reasons."""
    assert_accounted_for(run(container, tmp_path), 502)


@pytest.mark.local
def test_pipeline_loses_nothing_on_a_local_node(node: RabbitMQNode, tmp_path):
    """The same on a private rabbitmq-server."""
    assert_accounted_for(run(node.settings, tmp_path), 502)


@pytest.mark.local
@pytest.mark.parametrize("how", [pytest.param("stop", marks=pytest.mark.long), "kill"])
def test_pipeline_survives_a_broker_restart(node: RabbitMQNode, tmp_path, how):
    """The broker goes down (politely; by kill -9) in the middle and comes back: lost 0.

    Void, hence failed, unless it went down while jobs were waiting.
    """
    waiting: list[int] = []

    def restart() -> None:
        pause = threading.Event()
        for _ in range(600):
            lines = node.rabbitmqctl("list_queues", "-q", "name", "messages", "consumers")
            queues = {
                name.rpartition(".")[2]: (int(messages), int(consumers))
                for name, messages, consumers in map(str.split, lines.splitlines())
                if messages.isdigit()  # not the headings
            }
            messages, fetching = queues.get("start_fetch", (0, 0))
            _, processing = queues.get("data_processing", (0, 0))
            # a worker that comes while the broker is away says so and ends: not what is tested
            if 50 <= messages <= 450 and fetching == processing == 2:
                waiting.append(messages)
                getattr(node, how)()
                node.start()
                return
            pause.wait(0.1)

    breaker = threading.Thread(target=restart)
    breaker.start()
    # 20 ms a fetch, one at a time in each of two workers: the restart falls into some 5 seconds
    summary = run(node.settings, tmp_path, latency=0.02, concurrency=1)
    breaker.join(60)

    assert waiting, "the fault did not land"
    assert_accounted_for(summary, 502)
