"""Provides one broker for a whole test session, also with several processes (pytest-xdist).

With pytest-xdist the controller finds or starts the broker, and the workers read from a file how to
reach it. If each of eight workers started a private node, the nodes would need a minute of
processor time and a gigabyte. If the first worker started one for all, the node would end with that
worker, while others still run tests. The controller runs longer than all workers.

But the controller collects no tests, so it does not know whether one needs a broker. A worker
requests the broker by a file before it reports its collection. xdist starts no test before all
workers have reported.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mousetrap.broker import KINDS, Broker, ensure
from mousetrap.errors import BrokerSetupError, MousetrapError
from mousetrap.pytest_plugin.stash import SESSION_BROKER, request_folder
from mousetrap.runtime.atomic_file import write_atomically
from mousetrap.settings import Settings

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter


class SessionBroker:
    """The session's broker: found or started on request; one that was started ends with it."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._found: Broker | MousetrapError | None = None
        self._is_worker = hasattr(config, "workerinput")
        self._folder = Path(request_folder(config))
        self._is_requested = False

    def request(self) -> None:
        """Note that tests need a broker; a worker of xdist does so before it reports its tests."""
        self._is_requested = True
        if self._is_worker:
            self._folder.mkdir(mode=0o700, exist_ok=True)  # the answer contains a password
            self._request_file.touch()

    def prepare(self) -> None:
        """Find or start the broker, if requested. This can take long; `broker` raises a failure."""
        if self._is_requested and not self._is_worker:
            self._find()

    def answer(self) -> None:
        """In the controller: if a worker has requested a broker, find one and write the answer."""
        if self._found is None and self._request_file.exists():
            self._find()
            write_atomically(self._answer_file, json.dumps(_to_json(self._found)))

    def broker(self) -> Broker:
        """Return the session's broker.

        Raises:
            MousetrapError: there is no broker; the error says what was tried.
        """
        if self._found is None and self._answer_file.exists():
            self._found = _from_json(json.loads(self._answer_file.read_text(encoding="utf-8")))
        if self._found is None:  # a test requested the fixture by name while it ran
            self._find()
        if isinstance(self._found, Broker):
            return self._found
        assert self._found is not None
        raise self._found

    def close(self) -> None:
        """End the broker if it was started for this session; the workers have ended before."""
        if isinstance(self._found, Broker):
            self._found.close()
        if not self._is_worker:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _request_file(self) -> Path:
        return self._folder / "request"

    @property
    def _answer_file(self) -> Path:
        return self._folder / "answer.json"

    def _find(self) -> None:
        if self._found is None:
            try:
                found = ensure(log=self._log)
            except MousetrapError as error:
                self._found = error
                return
            if KINDS[found.kind].is_in_process and _must_be_rabbitmq():
                found.close()
                self._found = BrokerSetupError(
                    "there is no RabbitMQ, and in CI the embedded broker is not used instead: "
                    "start one, or set MOUSETRAP_BROKER=embedded to use the embedded broker"
                )
            else:
                self._found = found

    def _log(self, line: str) -> None:
        reporter: TerminalReporter | None = self._config.pluginmanager.get_plugin(
            "terminalreporter"
        )
        if reporter is not None and not self._is_worker:
            reporter.write_line(f"mousetrap: {line}")


def session_broker(config: pytest.Config) -> SessionBroker:
    """Return the `SessionBroker` of this session; create it at the first call."""
    if SESSION_BROKER not in config.stash:
        config.stash[SESSION_BROKER] = SessionBroker(config)
    found: SessionBroker = config.stash[SESSION_BROKER]
    return found


def _must_be_rabbitmq() -> bool:
    return bool(os.environ.get("CI")) and os.environ.get("MOUSETRAP_BROKER") != "embedded"


def _to_json(found: Broker | MousetrapError | None) -> dict[str, Any]:
    if isinstance(found, Broker):
        return {
            "kind": found.kind,
            "description": found.description,
            "environment": found.settings.to_environment(),
        }
    return {"error": str(found)}


def _from_json(answer: dict[str, Any]) -> Broker | MousetrapError:
    if "error" in answer:
        return BrokerSetupError(answer["error"])
    settings = Settings.from_environment(answer["environment"])
    return Broker(answer["kind"], settings, answer["description"])
