"""A namespace for one test: set in the environment while it runs, and deleted afterwards."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace

from mousetrap.amqp import declared_queues
from mousetrap.broker import Broker
from mousetrap.errors import MousetrapError
from mousetrap.job_queue import short_channel
from mousetrap.pytest_plugin.queue_report import describe_queues
from mousetrap.runs.delete_exchanges import delete_exchanges
from mousetrap.runs.run_lock import RunLock
from mousetrap.runtime import randomness
from mousetrap.runtime.temporary_folder import TemporaryFolder

REPORT_CONNECT_TIMEOUT = 3.0  # seconds to connect for the queue report, and for deleting the queues


class TestNamespace:
    """A namespace on a broker for one test, used by all that reads the environment.

    Within the context `Settings.from_environment`, kernels and worker processes use this broker and
    this namespace. On exit the environment is restored, and the queues that mousetrap has declared
    in the namespace are deleted; if this process is killed, ``mousetrap sweep`` deletes them. Other
    queues in it expire. In a forked child of this process the exit does nothing.

    Threads: `capture_queues` can be called in any thread, the rest in one.
    """

    __test__ = False  # pytest takes a class of this name for tests

    def __init__(
        self, broker: Broker, prefix: str, environment: Mapping[str, str] | None = None
    ) -> None:
        # 40 random bits: of a thousand namespaces at a time two are the same once in two million
        # sessions. A namespace has at most 40 characters, and a notebook or a run adds some.
        word = re.sub(r"[^A-Za-z0-9_]+", "_", prefix)[:8]
        self.namespace = f"{word}-{randomness.new_id()[:10]}"
        self.settings = broker.settings.replace(namespace=self.namespace, queues_expire=True)
        self._broker = replace(broker, settings=self.settings)
        self._extra = environment or {}
        self._saved: dict[str, str | None] = {}
        self._queue_report = ""
        self._owner = os.getpid()

    def __enter__(self) -> TestNamespace:
        self._folder = TemporaryFolder("mousetrap-")
        self._lock = RunLock(self.settings, has_declared_file=True)
        # without a lock file, a sweep would not read the names either
        self._declared = self._lock.declared_file or self._folder.path / "declared"
        ours = {
            **self._broker.environment(),
            declared_queues.DECLARED_VARIABLE: str(self._declared),
            **self._extra,
        }
        self._saved = {name: os.environ.get(name) for name in ours}
        os.environ.update(ours)
        return self

    def __exit__(self, *_: object) -> None:
        if os.getpid() != self._owner:
            return
        for name, value in self._saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        with ExitStack() as steps:
            steps.callback(self._folder.close)
            steps.callback(self._lock.release)
            self._delete_queues()

    def capture_queues(self) -> None:
        """Store the queue report. Only the first call has an effect: it is nearest to the cause."""
        self._queue_report = self._queue_report or describe_queues(
            declared_queues.names_in(self._declared),
            self.settings.replace(connect_timeout=REPORT_CONNECT_TIMEOUT),
            f"{self._broker.description}, namespace {self.namespace}",
        )

    @property
    def queue_report(self) -> str:
        """The queue report of the first call of `capture_queues`; that call is made if needed."""
        self.capture_queues()
        return self._queue_report

    def _delete_queues(self) -> None:
        # By prefix, since a notebook can make longer namespaces out of this one. Queues that it
        # declared in another namespace can be those of another user.
        names = declared_queues.names_in(self._declared)
        ours = [name for name in names if name.startswith(self.namespace)]
        settings = self.settings.replace(connect_timeout=REPORT_CONNECT_TIMEOUT)
        with suppress(MousetrapError):  # otherwise `mousetrap sweep` deletes them, or they expire
            if ours:
                with short_channel(settings) as channel:
                    for name in ours:
                        channel.queue_delete(name)
            exchanges = declared_queues.exchanges_in(self._declared)
            delete_exchanges([e for e in exchanges if e.startswith(self.namespace)], settings)
            self._lock.delete()
