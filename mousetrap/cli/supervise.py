"""``mousetrap work --processes N``: the same worker in several processes, looked after."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mousetrap.broker import probe
from mousetrap.cli.console import print_json, say
from mousetrap.display.progress import ProgressLine
from mousetrap.runtime.signals import run_until_signalled
from mousetrap.settings import Settings
from mousetrap.worker.supervisor import EXIT_TIMEOUT, Supervisor


def supervise(
    name: str,
    number: int,
    options: Mapping[str, Any],
    settings: Settings,
    *,
    health: str | None,
    with_parent: bool,
    json: bool,
) -> None:
    """Run stage *name* in *number* processes until told to stop; *options* as for each.

    Raises:
        ProcessEnded: they cannot work as they are configured.
        TimeoutError: some did not finish their messages in time.
    """
    arguments: list[str] = []
    for option, value in options.items():
        if value is not None:
            arguments += [f"--{option}", str(value)]
    live = _Line()
    workers = Supervisor(
        {name: number},
        settings,
        options=arguments,
        is_replaced=True,
        is_shown=True,
        # a handler's own print must not get between the reader and our JSON
        out=sys.stderr.fileno() if json else None,
        notify=live.say,
    )
    is_started = False

    def on_started() -> None:
        nonlocal is_started
        is_started = True
        live.say(f"{number} processes of {name}, on {settings.url}{probe.memory_note(settings)}"
                 + (f", namespace {settings.namespace}" if settings.namespace else ""))  # fmt: skip

    try:
        with told_of(health, workers.statistics):
            run_until_signalled(
                workers,
                # theirs, and what it takes to close and exit
                stop_timeout=options["grace"] + EXIT_TIMEOUT,
                with_parent=with_parent,
                on_started=on_started,
                on_poll=lambda: live.show(workers.statistics()),
                before_exit=workers.kill_all,
            )
    finally:
        if is_started:
            now = workers.statistics()
            if json:
                print_json(now)
            else:
                live.say(
                    f"{name}: {_counts(now)}, {now.get('reconnects', 0)} reconnects, "
                    f"{now['replaced']} replaced"
                )


@contextmanager
def told_of(place: str | None, ask: Callable[[], Mapping[str, Any]]) -> Iterator[None]:
    """Tell of health at *place*, if any, for as long as the block lasts."""
    if place is None:
        yield
        return
    from mousetrap.worker.health import Health  # http.server is for those who ask for it

    with Health(place, ask) as health:
        say(f"health: {health.url}")
        yield


class _Line:
    """The line that says how far they are: on a terminal one that changes, else now and then."""

    def __init__(self) -> None:
        self._progress = ProgressLine()
        self._shown = ""

    def show(self, now: Mapping[str, Any]) -> None:
        line = f"{now['consuming']} of {now['processes']} working: {_counts(now)}"
        if now.get("in_progress"):
            line += f", {now['in_progress']:,} in progress"
        if line != self._shown:  # an idle worker has nothing to say
            self._shown = line
            self._progress.update(line)

    def say(self, line: str) -> None:
        if self._shown and sys.stderr.isatty():  # above the line, which comes again
            sys.stderr.write("\r\x1b[K")
            self._shown = ""
        say(line)


def _counts(now: Mapping[str, Any]) -> str:
    return ", ".join(f"{now.get(each, 0):,} {each}" for each in ("done", "retried", "dead"))
