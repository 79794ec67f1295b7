"""``mousetrap topology``: for an administrator, without a broker."""

from __future__ import annotations

import json

import pytest

FLOW = "support.their_flow"


@pytest.fixture
def offline(run):
    """Run the command with an address at which no broker is."""
    return lambda *arguments, **environment: run(
        "topology", *arguments, RABBITMQ_URL="amqp://nobody:x@127.0.0.1:9/v", **environment
    )


def test_topology_prints_a_definitions_file(offline):
    """On stdout, when that is no terminal; what else has to be known is on stderr."""
    done = offline(FLOW, MOUSETRAP_NAMESPACE="team")
    content = json.loads(done.stdout)

    assert done.exit_code == 0
    assert {each["vhost"] for each in content["queues"]} == {"v"}
    assert "team.urgent" in {each["name"] for each in content["queues"]}
    assert "permissions" not in content
    assert "expected to exist, and not in the file: queue 'team.company.orders'" in done.stderr
    assert "rabbitmqctl set_permissions -p v USER '^$' '^(amq\\.default|" in done.stderr


def test_topology_of_some_stages_with_a_user(offline):
    """The file has what these stages need, and the permissions of the user."""
    done = offline(f"{FLOW}:price", f"{FLOW}:book", "--user", "worker")
    content = json.loads(done.stdout)

    assert [each["user"] for each in content["permissions"]] == ["worker"]
    assert content["permissions"][0]["configure"] == "^$"
    assert "company.orders" not in done.stdout
    assert "set_permissions" not in done.stderr


def test_topology_as_a_table(offline):
    """For people, with everything that is in the file."""
    table = offline(FLOW, "--table", COLUMNS="900").stdout

    for text in ("urgent", "x-max-priority=5", "order.*", "permission", "company\\.results"):
        assert text in table, text


def test_topology_has_the_queues_of_delays(offline):
    """For each queue that is read or written; retry delays replace those of the stages."""
    done = offline(f"{FLOW}:price", "--delay", "3600", "--delay", "3601", "--retry-delays", "7,8")
    queues = {each["name"]: each["arguments"] for each in json.loads(done.stdout)["queues"]}
    delayed = {name for name in queues if ".delay." in name}
    [read] = {name.partition(".retry.")[0] for name in queues if ".retry." in name}

    assert {name for name in queues if ".retry." in name} == {f"{read}.retry.{n}s" for n in (7, 8)}
    assert f"{read}.delay.3600s" in delayed
    assert len(delayed) >= 2  # a queue for both delays, of each target
    assert all(name.endswith(".delay.3600s") for name in delayed)
    assert all(queues[name]["x-message-ttl"] == 3_600_000 for name in delayed)
    plain = read.rpartition(".")[2]
    assert f"{plain}\\.delay\\.3600s" in done.stderr  # a permission to read
    assert offline(f"{FLOW}:price", "--delay", "999999").exit_code == 2


def test_topology_explains_itself(offline):
    """The help says how the file is imported, and what it does not change."""
    help = " ".join(offline("--help").stdout.split())

    for text in ("import_definitions", "What exists already is not changed", "declare=False"):
        assert text in help, text
    assert offline("support.their_flow:nothing").exit_code == 2
