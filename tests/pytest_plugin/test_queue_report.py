"""`mousetrap.pytest_plugin.queue_report`: the queues in the report of a failure."""

from __future__ import annotations

import os

from mousetrap import Message, Publisher, Settings, declare
from mousetrap.amqp import declared_queues
from mousetrap.pytest_plugin.queue_report import describe_queues


def test_queue_report_says_that_the_broker_does_not_answer():
    """The report of a failure does not fail itself."""
    settings = Settings(port=1, connect_timeout=0.2, namespace="gone")

    assert "the broker could not be queried: " in describe_queues(
        ["gone.words"], settings, "external"
    )


def test_queue_report_has_the_first_messages_of_a_queue(namespace, broker):
    """It has id, attempt and size, names deleted queues, and escapes control characters."""
    settings = broker.settings.replace(namespace=namespace)
    declare("words", "gone\x85\u202e", settings=settings)
    with Publisher(settings) as publisher:
        publisher.publish_many([Message("secret") for _ in range(9)], "words")
        publisher.flush()
    names = declared_queues.names_in(os.environ["MOUSETRAP_DECLARED"])

    text = describe_queues([*names, f"{namespace}.never"], settings, "external")

    assert "in words, the first 5 of 9:" in text
    assert text.count("attempt 1, 8 bytes") == 5
    assert "deleted: never" in text
    assert "secret" not in text
    assert "\\x85\\u202e" in text
