"""One broker for a whole test session, however many processes it has.

With pytest-xdist the controller finds or starts the broker and the workers are told how to reach
it. Were each worker to start a private node of its own, eight of them would cost a minute of
processor time and a gigabyte; were the first worker to start one for all, it would take the node
with it when it is done, and the others are not. The controller outlives them all. But it collects
nothing, so it does not know whether a broker is wanted; a worker tells it, by a file, before it
reports its collection, and no test runs before every worker has done that.
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
    """The session's broker; found when it is wanted, ended with the session if it is ours."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._found: Broker | MousetrapError | None = None
        self._is_worker = hasattr(config, "workerinput")
        self._folder = Path(request_folder(config))
        self._is_wanted = False

    def request(self) -> None:
        """Say that tests need a broker; in a worker of xdist before its collection is reported."""
        self._is_wanted = True
        if self._is_worker:
            self._folder.mkdir(mode=0o700, exist_ok=True)  # the answer contains a password
            self._request_file.touch()

    def prepare(self) -> None:
        """Find what is wanted, or start it, which may take long; `broker` reports a failure."""
        if self._is_wanted and not self._is_worker:
            self._find()

    def answer(self) -> None:
        """In the controller: find a broker if a worker wants one, and tell all of them."""
        if self._found is None and self._request_file.exists():
            self._find()
            write_atomically(self._answer_file, json.dumps(_to_json(self._found)))

    def broker(self) -> Broker:
        """Return the session's broker.

        Raises:
            MousetrapError: there is none; says what was tried.
        """
        if self._found is None and self._answer_file.exists():
            self._found = _from_json(json.loads(self._answer_file.read_text(encoding="utf-8")))
        if self._found is None:  # a fixture was asked for by its name in the middle of a test
            self._find()
        if isinstance(self._found, Broker):
            return self._found
        assert self._found is not None
        raise self._found

    def close(self) -> None:
        """End what was started; the workers are gone by now."""
        if isinstance(self._found, Broker):
            self._found.close()
        if not self._is_worker:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _request_file(self) -> Path:
        return self._folder / "question"

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
                    "there is no RabbitMQ here, and in CI the embedded broker is not taken for "
                    "one: bring one up, or say MOUSETRAP_BROKER=embedded if that is meant"
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
    """Return the one of this session."""
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
