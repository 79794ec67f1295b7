"""``mousetrap work``: a stage as a worker process."""

from __future__ import annotations

import logging
import math
import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from mousetrap.amqp.process_end import finish_publishers
from mousetrap.broker.probe import EMBEDDED
from mousetrap.cli.console import print_json
from mousetrap.cli.errors import ExitCode, code_of
from mousetrap.cli.find_stage import find_stage, parse_delays
from mousetrap.cli.live_panel import WorkPanel
from mousetrap.cli.options import Json, finite, log_format, log_level, time_limit
from mousetrap.cli.supervise import health_server, supervise
from mousetrap.cli.work_log import DoneLog, printer, report_errors_in, write_log
from mousetrap.cli.work_report import DeadLetterKinds, WorkSummary
from mousetrap.cli.work_warnings import WorkWarnings
from mousetrap.display.formats import counted
from mousetrap.display.progress import restore_terminal, write_values
from mousetrap.embedded_broker import PRODUCT
from mousetrap.flows.known_queues import unpacked
from mousetrap.runtime import clock
from mousetrap.runtime.signals import (
    HANDLERS_EXIT_TIMEOUT,
    STOP_TIMEOUT,
    exit_within,
    run_until_signalled,
)
from mousetrap.settings import Settings
from mousetrap.sink.results_sink import with_results_sink
from mousetrap.worker.service import WorkerService
from mousetrap.worker.worker import Worker

log = logging.getLogger("mousetrap.cli.work")

StageName = Annotated[
    str, typer.Argument(metavar="STAGE", help="fetch, process, or your own module:attribute.")
]
Concurrency = Annotated[
    int | None, typer.Option(min=1, help="Messages handled at a time; default: the stage's.")
]
Prefetch = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=65_535,
        help="Unacked messages that the broker may deliver. Default: as many as the handlers need.",
    ),
]
RetryDelays = Annotated[
    str | None, typer.Option(metavar="SECONDS", help="Waits between attempts: 0.2,1,5")
]
Reads = Annotated[
    str | None, typer.Option(metavar="QUEUE", help="For a plain function: the queue it reads.")
]
Writes = Annotated[
    list[str] | None,
    typer.Option(
        metavar="QUEUE", help="For a plain function: a queue it writes; repeat it for several."
    ),
]
Grace = Annotated[
    float,
    typer.Option(
        min=0, callback=finite, help="Seconds for the messages in progress after a signal."
    ),
]
HandlerTimeout = Annotated[
    float | None,
    typer.Option(
        callback=time_limit,
        metavar="SECONDS",
        help="Time limit of the handler: a longer attempt has failed and is retried.",
    ),
]
Processes = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Work in N processes and replace those that end: for handlers that use the CPU.",
    ),
]
HealthAddress = Annotated[
    str | None,
    typer.Option(metavar="PORT", help="Serve its health over HTTP: 8080, or 0.0.0.0:8080."),
]
LogLevel = Annotated[
    str,
    typer.Option(
        "--log-level",
        metavar="LEVEL",
        callback=log_level,
        help="debug: each message; info: each retry; warning: what needs a person; error.",
    ),
]
LogFormat = Annotated[
    str,
    typer.Option(
        "--log-format",
        metavar="FORMAT",
        callback=log_format,
        help="text, or json: one object a line, with the ids of message and job.",
    ),
]
WithParent = Annotated[bool, typer.Option("--with-parent", help="End when standard input does.")]


def work(
    name: StageName,
    concurrency: Concurrency = None,
    prefetch: Prefetch = None,
    retry_delays: RetryDelays = None,
    timeout: HandlerTimeout = None,
    reads: Reads = None,
    writes: Writes = None,
    grace: Grace = STOP_TIMEOUT,
    processes: Processes = None,
    health: HealthAddress = None,
    with_parent: WithParent = False,
    log_level: LogLevel = "warning",
    log_format: LogFormat = "text",
    report: Annotated[Path | None, typer.Option(hidden=True)] = None,
    queue_arguments: Annotated[str | None, typer.Option(hidden=True)] = None,
    json: Json = False,
) -> None:
    """Run STAGE on the messages of its queue until Ctrl-C or SIGTERM; a second one ends at once.

    Queues that exist are used as they are. If it may declare none, or MOUSETRAP_DECLARE=never, it
    names at its start all that is missing (see mousetrap topology). It warns if workers of another
    stage consume the same queue, and if messages are left in a queue that no stage uses any more.
    It shows a panel on a terminal, or else prints what it has done every ten seconds. It logs lost
    connections, one dead letter of each kind of error, and what your loggers say, from INFO on.
    After the first signal it finishes the messages in progress, or gives them back after --grace.

    With --processes, a process that crashes, is killed or finds no broker is replaced, after a wait
    that doubles up to half a minute, and a line reports it. A wrong setting ends all processes,
    with its exit code. They end when this process ends, however it ends. With --timeout, or a
    stage's, what takes longer has failed and is retried. When as many handlers hang as run at a
    time, it gives its messages back and ends with exit code 1.

    With --health, GET / answers 200 while the worker is alive, connected and consuming, else 503;
    GET /live checks only that it is alive. The body is JSON. By default it listens on 127.0.0.1.
    With RESULTS_SINK in the environment (a file, or postgresql://...) what is sent to the queue
    `results` is stored there as well, each message once.

    The ids of its outputs are computed from the stage's name. After you rename its function, give
    the stage the old name (@stage(..., name="old_name")), or a sink stores some results twice.

    Example: mousetrap work fetch --concurrency 4 --processes 2 --health 8080

    Example: mousetrap work my_flow:measure --reads words --writes lengths
    """
    report_errors_in(log_format)
    settings = Settings.from_environment()
    if processes is not None:
        options = {"concurrency": concurrency, "prefetch": prefetch, "timeout": timeout,
                   "retry-delays": retry_delays, "reads": reads, "writes": writes,
                   "grace": grace, "log-level": log_level, "log-format": log_format}  # fmt: skip
        supervise(name, processes, options, settings, health=health,
                  with_parent=with_parent, json=json)  # fmt: skip
        return
    worker = with_results_sink(find_stage(name, reads, writes)).worker(
        settings, concurrency=concurrency, prefetch=prefetch, timeout=timeout,
        retry_delays=None if retry_delays is None else parse_delays(retry_delays),
        queues=None if queue_arguments is None else unpacked(queue_arguments),
    )  # fmt: skip
    _Work(worker, settings, grace, report, json, (log_level, log_format)).run(health, with_parent)


class _Work:
    """One worker in this process: what it prints, and the file that its supervisor reads.

    *report* is that file; a worker with a supervisor leaves the lines for people to it.
    """

    def __init__(
        self,
        worker: Worker,
        settings: Settings,
        grace: float,
        report: Path | None,
        json: bool,
        level_and_format: tuple[str, str],
    ) -> None:
        self._worker = worker
        self._settings = settings
        self._grace = grace
        self._report = report
        self._json = json
        self._is_working = False
        self._stopping = -math.inf  # when the signal came, on the monotonic clock
        self._warnings = WorkWarnings(worker, settings, log.warning)
        level, self._format = level_and_format
        self._level = logging.getLevelNamesMapping()[level.upper()]
        if self._level <= logging.DEBUG:
            worker.add_hook(DoneLog())
        self._print = printer(self._format)
        self._kinds = DeadLetterKinds(has_all=self._level < logging.WARNING)
        self._summary = WorkSummary(
            worker.handler.name, worker.statistics, self._kinds, self._print
        )
        is_for_people = report is None and not json and self._format == "text"
        self._has_panel = is_for_people and sys.stderr is not None and sys.stderr.isatty()
        self._panel: WorkPanel | None = None

    def run(self, health: str | None, with_parent: bool) -> None:
        """Work until a signal."""
        process = self._report.stem if self._report else ""
        write_log(self._level, self._format, process, self._kinds)
        # what a handler prints must not mix with the JSON
        out = sys.stderr if self._json else sys.stdout
        code = ExitCode.OK
        try:
            with health_server(health, self._health, self._print), redirect_stdout(out):
                run_until_signalled(
                    WorkerService(self._worker, self._grace),
                    stop_timeout=self._grace,
                    with_parent=with_parent,
                    on_started=self._on_started,
                    on_poll=self._on_poll,
                    on_stopping=self._on_stopping,
                    before_exit=restore_terminal if self._has_panel else lambda: None,
                )
        except BaseException as error:
            code = code_of(error)
            raise
        finally:
            if self._panel is not None:
                self._panel.close()
            self._warnings.stop()
            self._write_report()
            if self._is_working and self._report is None:
                self._print_summary()
            # Threads that handlers have started, and those of `to_thread`, may never end, also
            # after their handlers have returned.
            if self._worker.abandoned or self._worker.statistics().in_progress:
                exit_within(HANDLERS_EXIT_TIMEOUT, code, lambda: finish_publishers(0.0))
            else:
                left = max(HANDLERS_EXIT_TIMEOUT, clock.remaining(self._stopping + self._grace))
                exit_within(left, code, finish_publishers)

    def _on_started(self) -> None:
        self._is_working = True
        self._write_report()
        self._warnings.start()
        if self._report is None:
            worker, settings = self._worker, self._settings
            route = f"{worker.queue.name} → {worker.handler.name}{worker.targets}"
            embedded = f", {EMBEDDED}" if worker.broker.startswith(PRODUCT) else ""
            namespace = f", namespace {settings.namespace}" if settings.namespace else ""
            self._print(
                f"working: {route}, concurrency {worker.concurrency}, on "
                f"{settings.url}{embedded}{namespace}"
            )
        if self._has_panel:
            self._panel = WorkPanel(self._worker, self._kinds)

    def _on_poll(self) -> None:
        self._write_report()
        if self._panel is not None:
            self._panel.poll()
        elif self._report is None:
            self._summary.poll()

    def _on_stopping(self) -> None:
        self._stopping = clock.monotonic()
        if self._report is None and (in_progress := self._worker.statistics().in_progress):
            self._print(
                f"stopping: {in_progress} in progress, which may take up to {self._grace:g} s; "
                f"those that are not finished then go back to their queue. A second signal ends it "
                f"at once"
            )

    def _statistics(self) -> dict[str, Any]:
        return asdict(self._worker.statistics())

    def _health(self) -> dict[str, Any]:
        return self._statistics() | {"warning": self._warnings.text}

    def _write_report(self) -> None:
        if self._report is not None:
            write_values(self._report, self._statistics() | {"has_worked": self._is_working})

    def _print_summary(self) -> None:
        now = self._worker.statistics()
        if self._json:
            print_json(asdict(now))
        else:
            reconnects = counted(now.reconnects, "reconnect")
            self._print(f"{self._summary.counts(now)}, {reconnects}")
