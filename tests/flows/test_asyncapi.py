"""A flow as an AsyncAPI 3 document, which the official parser accepts."""

from __future__ import annotations

import json
import subprocess

import pytest
from support import describable, shapes
from support.node_packages import node_package

from mousetrap import describe
from mousetrap.run_fetch_worker import fetch
from mousetrap.run_processing_worker import process

PARSER = ("@asyncapi/parser", "3.6.0")
PROGRAM = """
const {Parser} = require('@asyncapi/parser');
new Parser().parse(require('fs').readFileSync(0, 'utf8')).then(({document, diagnostics}) => {
  console.log(JSON.stringify({
    found: diagnostics.filter(each => each.code !== 'asyncapi-latest-version'),
    operations: document && document.operations().all().map(each => [
      each.id(), each.action(), each.channels().all().map(channel => channel.address()),
      each.messages().all().map(message => message.name())]),
  }));
});
"""
FLOWS = {"one of everything": describable.flow, "shapes": shapes, "the demo": [fetch, process]}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", FLOWS)
def test_the_official_parser_accepts_the_document(name):
    """Without an error or a warning but for the number of AsyncAPI's newest version."""
    folder = node_package(*PARSER)
    document = describe(FLOWS[name]).asyncapi(name, "2.1")

    done = subprocess.run(
        ["node", "-e", PROGRAM], input=json.dumps(document), cwd=folder, capture_output=True,
        text=True, timeout=60, check=True,
    )  # fmt: skip

    parsed = json.loads(done.stdout)
    assert parsed["found"] == []
    assert len(parsed["operations"]) == sum(
        1 + len(each.targets.all) for each in describe(FLOWS[name]).flow.stages
    )
    if name == "one of everything":
        assert parsed["operations"][:7] == [
            ["parse_receive", "receive", ["raw"], ["str"]],
            ["parse_send_archive", "send", ["archive"], ["Visit"]],
            ["parse_send_visits", "send", ["visits"], ["Visit"]],
            ["score_receive", "receive", ["visits"], ["Visit"]],
            ["score_send_scored", "send", ["scored"], ["Score"]],
            ["score_send_errors", "send", ["errors"], ["Visit"]],
            ["score_send_alarms", "send", [None], ["Visit"]],
        ]


def test_document_has_the_bindings_and_the_places_of_failures():
    """A queue is durable and not exclusive; an exchange has its type, and its channel the key."""
    channels = describe(describable.flow).asyncapi()["channels"]

    queue = channels["audit"]
    assert queue["bindings"]["amqp"]["queue"] == {
        "name": "audit", "durable": True, "exclusive": False, "autoDelete": False,
    }  # fmt: skip
    assert queue["x-mousetrap"] == {
        "bindings": [{"exchange": "orders", "type": "topic", "key": "order.*"}],
        "retryDelays": [1.0, 5.0, 25.0], "deadLetters": "audit.dead",
    }  # fmt: skip
    exchange = channels["orders_order.paid"]
    assert exchange["address"] == "order.paid"
    assert exchange["bindings"]["amqp"]["exchange"]["type"] == "topic"
