"""A namespace for one test: in the environment while it runs, and emptied when it is over."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from mousetrap.amqp import declared_queues
from mousetrap.broker import Broker
from mousetrap.errors import MousetrapError
from mousetrap.job_queue import short_channel
from mousetrap.pytest_plugin.queue_report import describe_queues
from mousetrap.runtime import randomness

REPORT_CONNECT_TIMEOUT = 3.0  # seconds to reach the broker for the last look and for cleaning up


class TestNamespace:
    """A test's own place on a broker; everything that reads the environment is in it, too.

    `Settings.from_environment`, kernels and worker processes use this broker and this namespace
    while the context lasts; afterwards the environment is as it was. Queues that were declared by
    us in the namespace are deleted then, the rest expires.

    Threads: `look` from any, the rest from one.
    """

    def __init__(
        self, broker: Broker, prefix: str, environment: Mapping[str, str] | None = None
    ) -> None:
        # 40 random bits: of a thousand at a time no two are the same, but once in two million
        # sessions. A namespace has 40 letters, and a notebook or a run adds some to ours.
        word = re.sub(r"[^A-Za-z0-9_]+", "_", prefix)[:8]
        self.namespace = f"{word}-{randomness.new_id()[:10]}"
        self.settings = broker.settings.replace(namespace=self.namespace)
        self._broker = replace(broker, settings=self.settings)
        self._extra = environment or {}
        self._saved: dict[str, str | None] = {}
        self._picture = ""

    def __enter__(self) -> TestNamespace:
        self._folder = tempfile.TemporaryDirectory(prefix="mousetrap-", ignore_cleanup_errors=True)
        self._declared = Path(self._folder.name, "declared")
        ours = {
            **self._broker.environment(),
            declared_queues.DECLARED_VARIABLE: str(self._declared),
            **self._extra,
        }
        self._saved = {name: os.environ.get(name) for name in ours}
        os.environ.update(ours)
        return self

    def __exit__(self, *_: object) -> None:
        for name, value in self._saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._delete_queues()
        self._folder.cleanup()

    def look(self) -> None:
        """Take the picture of the queues; only the first look counts, the nearest to the cause."""
        self._picture = self._picture or describe_queues(
            declared_queues.names_in(self._declared),
            self.settings.replace(connect_timeout=REPORT_CONNECT_TIMEOUT),
            f"{self._broker.description}, namespace {self.namespace}",
        )

    @property
    def queue_report(self) -> str:
        """How the queues stood when somebody looked first; now, if nobody has."""
        self.look()
        return self._picture

    def _delete_queues(self) -> None:
        # By prefix, since a notebook makes namespaces of its own out of ours. What it declared
        # elsewhere may be other people's.
        names = declared_queues.names_in(self._declared)
        ours = [name for name in names if name.startswith(self.namespace)]
        if not ours:
            return
        settings = self.settings.replace(connect_timeout=REPORT_CONNECT_TIMEOUT)
        with suppress(MousetrapError), short_channel(settings) as channel:  # else they expire
            for name in ours:
                channel.queue_delete(name)
