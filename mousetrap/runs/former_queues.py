"""Remembers which queues the stages of this machine used, to find messages that a change left.

When a stage gets another queue to read or to write, the messages in the old queue stay where they
are, and a broker cannot say that they were meant for a stage. So each start of `mousetrap work`
writes the names into a file in the user's state folder, one for each stage, broker and namespace.
Stages that only other machines or users start are not known here. Retry queues are left out: the
broker itself returns their messages to the work queue.

The file also shows that a function was perhaps renamed: the name of a stage is part of the ids of
its outputs, and a message that was handled under both names has outputs with two ids.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mousetrap.broker.paths import state_folder
from mousetrap.display.formats import counted
from mousetrap.errors import SettingsError
from mousetrap.job_queue import ANSWERS_TIMEOUT, depths
from mousetrap.runtime import clock
from mousetrap.runtime.atomic_file import write_atomically
from mousetrap.settings import Settings

log = logging.getLogger("mousetrap.runs.former_queues")


RENAME_NOTED = 7 * 86_400.0  # seconds after the first start of a stage; a guess


@dataclass(frozen=True)
class Rename:
    """A stage that is new here, and reads a queue that stages with other names read before."""

    queue: str
    stage: str
    before: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.queue!r} is read by stage {self.stage}, before by {', '.join(self.before)}. If "
            f"that is the same function with another name, its outputs have other ids now, and a "
            f"sink stores the result of a message that both have handled twice; keep the identity: "
            f"stage(name={self.before[0]!r})"
        )


@dataclass(frozen=True)
class Leftover:
    """A queue with messages that a stage used once and that no stage uses now."""

    queue: str
    messages: int
    stage: str  # the one that used it

    def __str__(self) -> str:
        return (
            f"{counted(self.messages, 'message')} in {self.queue!r}, which stage {self.stage} used "
            f"before and no stage uses now: start a stage that reads it, or take them out "
            f"(mousetrap drain {self.queue})"
        )


def remember(settings: Settings, stage: str, queues: Iterable[str], reads: str = "") -> None:
    """Record that *stage* uses *queues* (plain names) now; those that it used before are former.

    *reads* is the one whose messages it handles.
    Queues that expire, as those of runs and tests do, are not recorded. If the state folder cannot
    be written, nothing is.
    """
    if settings.queues_expire:
        return
    current = sorted(set(queues))
    address = _address(settings)
    name = hashlib.sha256(json.dumps([address, stage]).encode()).hexdigest()[:24]
    try:
        path = state_folder("stages") / f"{name}.json"
        known = _read(path)
        before = {*known.get("current", ()), *known.get("former", ())}
        now = clock.time()
        facts = {"address": address, "stage": stage, "current": current, "reads": reads,
                 "former": sorted(before - set(current)),
                 "since": known.get("since", 0.0) if known else now, "started": now}  # fmt: skip
        write_atomically(path, json.dumps(facts))
    except (OSError, SettingsError) as error:
        log.debug("the queues of stage %s are not recorded: %s", stage, error)


def leftovers(settings: Settings, timeout: float = ANSWERS_TIMEOUT) -> list[Leftover]:
    """Return the former queues at this broker and namespace that have messages and no consumers.

    Raises:
        WireError: the broker cannot be asked, or did not answer within *timeout* seconds.
    """
    ours = _stages(settings)
    in_use = {name for each in ours for name in each["current"]}
    stages = {name: each["stage"] for each in ours for name in each["former"] if name not in in_use}
    if not stages:
        return []
    return [
        Leftover(each.queue, each.messages, stages[each.queue])
        for each in depths(stages, settings, timeout=timeout)
        if each is not None and each.messages and not each.consumers
    ]


def renames(settings: Settings) -> list[Rename]:
    """Return the stages at this broker and namespace that are perhaps older ones with a new name.

    A stage is named for `RENAME_NOTED` after its first start on this machine, and not after an
    older one was started again: then the function has its old name back.
    """
    ours = [each for each in _stages(settings) if each.get("reads")]
    found = []
    for each in ours:
        since = each.get("since", 0.0)
        before = sorted(
            other["stage"]
            for other in ours
            if other["reads"] == each["reads"]
            and other.get("since", 0.0) < since
            and other.get("started", 0.0) < each.get("started", since)
        )
        if before and clock.time() - since < RENAME_NOTED:
            found.append(Rename(each["reads"], each["stage"], tuple(before)))
    return found


def current_queues(settings: Settings) -> list[str]:
    """Return the queues of the stages that this machine has run at this broker and namespace."""
    return sorted({name for each in _stages(settings) for name in each["current"]})


def _stages(settings: Settings) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    with suppress(OSError, SettingsError):
        found = [_read(path) for path in sorted(state_folder("stages").glob("*.json"))]
    return [each for each in found if each.get("address") == _address(settings)]


def _address(settings: Settings) -> list[Any]:
    host = "localhost" if settings.host in ("127.0.0.1", "::1") else settings.host
    return [host, settings.port, settings.vhost, settings.namespace]


def _read(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}
