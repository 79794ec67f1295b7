"""``mousetrap work``: a stage as a worker process."""

from __future__ import annotations

import difflib
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer

from mousetrap.broker.probe import EMBEDDED
from mousetrap.cli.console import print_json, say
from mousetrap.cli.options import Json, finite
from mousetrap.cli.supervise import supervise, told_of
from mousetrap.display.progress import write_figures
from mousetrap.display.safe_text import safe
from mousetrap.embedded_broker import PRODUCT
from mousetrap.errors import SettingsError
from mousetrap.flows.stage import Stage, stage
from mousetrap.runtime.signals import STOP_TIMEOUT, run_until_signalled
from mousetrap.settings import Settings
from mousetrap.sink.results_sink import with_results_sink
from mousetrap.worker.worker import Worker

BUILT_IN = {
    "fetch": "mousetrap.run_fetch_worker:fetch",
    "process": "mousetrap.run_processing_worker:process",
}


def work(
    name: Annotated[
        str, typer.Argument(metavar="STAGE", help="fetch, process, or your own module:attribute.")
    ],
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Messages handled at a time; default: the stage's.")
    ] = None,
    prefetch: Annotated[
        int | None, typer.Option(min=1, max=65_535, help="Messages the broker may hand ahead.")
    ] = None,
    retry_delays: Annotated[
        str | None, typer.Option(metavar="SECONDS", help="Waits between attempts: 0.2,1,5")
    ] = None,
    reads: Annotated[
        str | None, typer.Option(metavar="QUEUE", help="For a plain function: what it reads.")
    ] = None,
    writes: Annotated[
        str | None, typer.Option(metavar="QUEUE", help="For a plain function: what it writes.")
    ] = None,
    grace: Annotated[
        float,
        typer.Option(
            min=0, callback=finite, help="Seconds for the messages in hand after a signal."
        ),
    ] = STOP_TIMEOUT,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Work in N processes and replace those that die: for Python that needs its CPU.",
        ),
    ] = None,
    health: Annotated[
        str | None,
        typer.Option(
            metavar="PORT", help="Tell over HTTP whether it is well: 8080, or 0.0.0.0:8080."
        ),
    ] = None,
    with_parent: Annotated[
        bool, typer.Option("--with-parent", help="End when standard input does.")
    ] = False,
    report: Annotated[Path | None, typer.Option(hidden=True)] = None,
    json: Json = False,
) -> None:
    """Run STAGE on the messages of its queue until Ctrl-C or SIGTERM; a second one ends at once.

    Ended that way, with nothing left in hand, it has done its work: exit code 0.

    With --processes, a process that crashes, is killed or finds no broker is replaced, after a wait
    that doubles up to half a minute, and a line says so. A setting that cannot work ends them all,
    with its exit code. They end with this one, however that ends.

    With --health, GET / answers 200 while it is alive, connected and consuming, else 503; GET /live
    asks for the first alone. The body is JSON. Only this machine is answered unless told otherwise.

    With RESULTS_SINK in the environment (a file, or postgresql://...) what is sent to the queue
    `results` is stored there as well, once for each message.

    Example: mousetrap work fetch --concurrency 4

    Example: mousetrap work fetch --processes 2 --health 8080

    Example: mousetrap work my_flow:measure --reads words --writes lengths
    """
    settings = Settings.from_environment()
    if processes is not None:
        options = {"concurrency": concurrency, "prefetch": prefetch, "retry-delays": retry_delays,
                   "reads": reads, "writes": writes, "grace": grace}  # fmt: skip
        supervise(name, processes, options, settings, health=health,
                  with_parent=with_parent, json=json)  # fmt: skip
        return
    found = with_results_sink(find_stage(name, reads, writes))
    worker = found.worker(
        settings,
        concurrency=concurrency,
        prefetch=prefetch,
        retry_delays=None if retry_delays is None else parse_delays(retry_delays),
    )
    is_working = False
    # A worker that does not even start logs why; that sentence is coming as the error anyway.
    _log_to_stderr(
        lambda record: is_working or record.levelno < logging.ERROR, report.stem if report else ""
    )

    def tell_parent() -> None:
        if report is not None:
            write_figures(report, asdict(worker.statistics()) | {"has_worked": is_working})

    def on_started() -> None:
        nonlocal is_working
        is_working = True
        tell_parent()
        if report is not None:  # the parent says it once for all
            return
        way = f"{worker.queue.name} → {worker.handler.name}"
        way += f" → {worker.writes}" if worker.writes else ""
        say(f"working: {way}, concurrency {worker.concurrency}, on {settings.url}"
            + f", {EMBEDDED}" * worker.broker.startswith(PRODUCT)
            + (f", namespace {settings.namespace}" if settings.namespace else ""))  # fmt: skip

    def on_stopping() -> None:
        if report is None and (in_progress := worker.statistics().in_progress):
            say(
                f"stopping: {in_progress} in progress, which may take up to {grace:g} s; after a "
                "second signal it ends at once and they are delivered again"
            )

    # a handler's own print must not get between the reader and our JSON
    out = sys.stderr if json else sys.stdout
    try:
        with told_of(health, lambda: asdict(worker.statistics())), redirect_stdout(out):
            run_until_signalled(
                worker, stop_timeout=grace, with_parent=with_parent,
                on_started=on_started, on_poll=tell_parent, on_stopping=on_stopping,
            )  # fmt: skip
    finally:
        tell_parent()
        if is_working and report is None:
            _sum_up(worker, json)


def find_stage(name: str, reads: str | None, writes: str | None) -> Stage[Any, Any]:
    """Return the stage that *name* stands for.

    Raises:
        SettingsError: there is none; says which there are.
    """
    module_name, _, attribute = BUILT_IN.get(name, name).partition(":")
    if not module_name or not attribute:
        near = difflib.get_close_matches(name, BUILT_IN, 1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        raise SettingsError(
            f"there is no stage {name!r}{meant}: use {', '.join(BUILT_IN)}, or module:attribute"
        )
    if os.getcwd() not in sys.path:  # `python -m` puts it there, an installed script does not
        sys.path.insert(0, os.getcwd())
    found = _attribute(_module(module_name), attribute)
    if isinstance(found, Stage):
        if reads is not None or writes is not None:
            raise SettingsError(
                f"{name} is a stage and knows its queues: leave --reads and --writes out, or name "
                f"a plain function"
            )
        return found
    if not callable(found):
        raise SettingsError(f"{name} is no stage and no function, but {type(found).__name__}")
    if reads is None:
        raise SettingsError(f"{name} is a plain function: say what it reads with --reads QUEUE")
    try:
        return stage(reads, writes)(found)
    except TypeError as error:
        raise SettingsError(str(error)) from error


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"cannot import {name!r}: {error}; run it where the module lies, or install it"
        ) from error
    except Exception as error:  # whatever somebody's module raises
        [*_, last] = traceback.extract_tb(error.__traceback__)
        raise SettingsError(
            f"importing {name!r} failed in {last.filename}, line {last.lineno}: "
            f"{type(error).__name__}: {error}; try it alone: python -c 'import {name}'"
        ) from error


def _attribute(module: ModuleType, name: str) -> Any:
    try:
        return getattr(module, name)
    except AttributeError:
        near = difflib.get_close_matches(name, dir(module), 1)
        meant = f": did you mean {near[0]}?" if near else ""
        raise SettingsError(f"module {module.__name__!r} has no {name!r}{meant}") from None


def parse_delays(text: str) -> tuple[float, ...]:
    """Return ``"0.2,1,5"`` as seconds; the empty text means no retry."""
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise SettingsError(
            f"--retry-delays is {text!r}: it must be seconds with commas, like 0.2,1,5"
        ) from None


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return safe(super().format(record).replace("\n", " | "))


def _log_to_stderr(wanted: Callable[[logging.LogRecord], bool], name: str) -> None:
    handler = logging.StreamHandler()
    handler.addFilter(wanted)
    who = f"{name}: " if name else ""
    handler.setFormatter(_OneLine(f"%(asctime)s %(levelname)s {who}%(message)s"))
    logger = logging.getLogger("mousetrap")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)


def _sum_up(worker: Worker, json: bool) -> None:
    now = worker.statistics()
    if json:
        print_json(asdict(now))
    else:
        say(
            f"{worker.handler.name}: {now.done:,} done, {now.retried:,} retried, "
            f"{now.dead:,} dead, {now.reconnects} reconnects"
        )
