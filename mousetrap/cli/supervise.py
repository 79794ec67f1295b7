"""``mousetrap work --processes N``: a stage in several worker processes with a supervisor."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mousetrap.broker import probe
from mousetrap.cli.console import print_json
from mousetrap.cli.work_log import printer
from mousetrap.display.formats import counted, rate
from mousetrap.display.progress import ProgressDisplay, Row, restore_terminal
from mousetrap.notebook.rate import RateMeter
from mousetrap.runtime import clock
from mousetrap.runtime.signals import run_until_signalled
from mousetrap.settings import Settings
from mousetrap.worker.statistics import LONG_HANDLING
from mousetrap.worker.supervisor import PROCESS_EXIT_TIMEOUT, Supervisor


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
    """Run stage *name* in *number* processes until a signal; each gets the *options*.

    Raises:
        ProcessEnded: they cannot work with this configuration.
        TimeoutError: some did not finish their messages in time.
    """
    arguments = [
        argument
        for option, given in options.items() if given is not None
        for value in (given if isinstance(given, list) else [given])
        for argument in (f"--{option}", str(value))
    ]  # fmt: skip
    log_format = options["log-format"]
    display = ProgressDisplay(write=printer(log_format) if log_format == "json" else None)
    supervisor = Supervisor(
        {name: number},
        settings,
        options=arguments,
        is_replaced=True,
        is_shown=True,
        # what a handler prints must not mix with the JSON
        out=sys.stderr.fileno() if json else None,
        notify=display.print,
    )
    command = _Supervision(name, number, settings, supervisor, display)
    try:
        with health_server(health, supervisor.statistics, display.print), display:
            run_until_signalled(
                supervisor,
                # theirs, and the time to close and exit
                stop_timeout=options["grace"] + PROCESS_EXIT_TIMEOUT,
                with_parent=with_parent,
                on_started=command.on_started,
                on_poll=command.show,
                before_exit=command.kill_all,
            )
    finally:
        if command.is_working:
            command.print_summary(json)


class _Supervision:
    """What is printed about the worker processes."""

    def __init__(
        self,
        name: str,
        number: int,
        settings: Settings,
        supervisor: Supervisor,
        display: ProgressDisplay,
    ) -> None:
        self.is_working = False
        self._name, self._number, self._settings = name, number, settings
        self._supervisor = supervisor
        self._display = display
        self._shown = ""
        self._rate = RateMeter()

    def on_started(self) -> None:
        self.is_working = True
        settings = self._settings
        namespace = f", namespace {settings.namespace}" if settings.namespace else ""
        self._display.print(
            f"{counted(self._number, 'process', 'processes')} of {self._name}, on "
            f"{settings.url}{probe.memory_note(settings)}{namespace}"
        )

    def show(self) -> None:
        now = self._supervisor.statistics()
        self._rate.add(now.get("done", 0), clock.monotonic())
        line = f"{now['consuming']} of {now['processes']} working: {_counts(now)}"
        if self._rate.rate:
            line += f", {rate(self._rate.rate)}"
        if now.get("in_progress"):
            line += f", {now['in_progress']:,} in progress"
        if now["oldest"] >= LONG_HANDLING:
            line += f", the oldest for over {now['oldest'] // LONG_HANDLING * LONG_HANDLING:.0f} s"
        if line != self._shown:  # idle workers print nothing
            self._shown = line
            self._display.show([Row(note=line)])

    def kill_all(self) -> None:
        self._supervisor.kill_all()
        restore_terminal()

    def print_summary(self, json: bool) -> None:
        now = self._supervisor.statistics()
        if json:
            print_json(now)
        else:
            self._display.print(
                f"{self._name}: {_counts(now)}, {counted(now.get('reconnects', 0), 'reconnect')}, "
                f"{now['replaced']} replaced"
            )


def _counts(now: Mapping[str, Any]) -> str:
    return ", ".join(f"{now.get(each, 0):,} {each}" for each in ("done", "retried", "dead"))


@contextmanager
def health_server(
    address: str | None,
    statistics: Callable[[], Mapping[str, Any]],
    show: Callable[[str], object],
) -> Iterator[None]:
    """Serve health over HTTP at *address*, if any, while the block runs."""
    if address is None:
        yield
        return
    from mousetrap.worker.health import Health  # not at the top: most workers need no HTTP server

    with Health(address, statistics) as health:
        show(f"health: {health.url}")
        yield
