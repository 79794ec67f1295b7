"""Record what a version of the package publishes: ``python tests/make_recorded.py FOLDER NAME``.

FOLDER has the package of that version, as from ``git worktree add FOLDER COMMIT``. Its workers
handle the jobs of `rig.recorded_stages` on a RabbitMQ in a container, whose firehose reports each
publish. ``tests/recorded/NAME.json`` gets one row for each: exchange, routing key, properties and
body. Run it for each release; the tests in ``tests/recorded`` read all files there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pika
from rig.brokers import Container

TESTS = Path(__file__).resolve().parent
FOLDER = TESTS / "recorded"
TRACE = "trace"  # the queue that the firehose fills


def published(method: Any, properties: Any, body: bytes) -> dict[str, Any]:
    """Return the publish that a message of the firehose reports."""
    [key] = properties.headers["routing_keys"]
    return {
        "exchange": properties.headers["exchange_name"],
        "key": key,
        "properties": properties.headers["properties"],
        "body": body.decode(),
    }


def record(package: Path) -> list[dict[str, Any]]:
    """Return all that the package in this folder publishes, in the order of the broker."""
    container = Container()
    try:
        container.start()
        with pika.BlockingConnection(parameters(container)) as connection:
            channel = connection.channel()
            channel.queue_declare(TRACE, durable=True)
            channel.queue_bind(TRACE, "amq.rabbitmq.trace", "publish.#")
            container.rabbitmqctl("trace_on")
            path = os.pathsep.join((str(package), str(TESTS)))
            ours = {key: value for key, value in os.environ.items() if "MOUSETRAP" not in key}
            environment = ours | container.settings.to_environment() | {"PYTHONPATH": path}
            subprocess.run(
                [sys.executable, "-m", "rig.recorded_stages"], env=environment, cwd=package,
                timeout=300, check=True,
            )  # fmt: skip
            container.rabbitmqctl("trace_off")
            found = []
            while (got := channel.basic_get(TRACE, auto_ack=True))[0] is not None:
                found.append(published(*got))
            return found
    finally:
        container.close()


def parameters(container: Container) -> pika.ConnectionParameters:
    """Return how to connect to it in plain pika."""
    to = container.settings
    login = pika.PlainCredentials(to.user, to.password)
    return pika.ConnectionParameters(to.host, to.port, credentials=login)


def main() -> None:
    """Write the file."""
    package, name = sys.argv[1:]
    rows = record(Path(package).resolve())
    text = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    for folder in (Path(package).resolve(), TESTS.parent, Path(sys.prefix)):  # in tracebacks
        text = text.replace(f"{folder}/", "")
    (FOLDER / f"{name}.json").write_text(f"[\n{text}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
