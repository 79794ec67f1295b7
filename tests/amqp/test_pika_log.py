"""pika's log: quiet where its errors are raised in our words, and untouched everywhere else."""

from __future__ import annotations

import inspect
import logging
import socket
from importlib import import_module

import pika
import pytest
from pika.adapters.utils.connection_workflow import AMQPConnectorStackTimeout

from mousetrap.amqp import pika_log
from mousetrap.amqp.publisher import Publisher
from mousetrap.errors import BrokerUnreachable
from mousetrap.job_queue import depth, open_channel
from mousetrap.settings import Settings
from mousetrap.worker.worker import Worker

CALLS = {
    "publisher": lambda settings: Publisher(settings).open(),
    "depth": lambda settings: depth("work", settings),
    "open_channel": open_channel,
    "worker": lambda settings: Worker("work", print, settings).start(),
}


@pytest.fixture
def silent():
    """Settings of a port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Settings(host="127.0.0.1", port=server.getsockname()[1], connect_timeout=0.3)


def logged(caplog):
    return [each.name for each in caplog.records if each.name.startswith("pika")]


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_connection_that_times_out_is_one_error(silent, caplog, call):
    """The exception; no record of pika, and no traceback."""
    with pytest.raises(BrokerUnreachable):
        call(silent)

    assert logged(caplog) == []


def test_who_asks_for_the_log_of_pika_gets_it(silent, caplog):
    """By a level of its logger."""
    with caplog.at_level(logging.ERROR, "pika"), pytest.raises(BrokerUnreachable):
        depth("work", silent)

    assert logged(caplog)


def test_connections_by_pika_itself_log_as_before(silent, caplog):
    """They are not ours."""
    parameters = pika.ConnectionParameters(
        silent.host, silent.port, blocked_connection_timeout=0.3, stack_timeout=0.3
    )
    with pytest.raises(AMQPConnectorStackTimeout):
        pika.BlockingConnection(parameters)

    assert logged(caplog)


def test_each_logger_that_is_silenced_exists():
    """A module of pika that is renamed would be loud again."""
    for name in pika_log.LOGGERS:
        assert "getLogger(__name__)" in inspect.getsource(import_module(name))
