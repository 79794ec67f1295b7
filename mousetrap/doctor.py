"""Checks a setup, from the settings to the queues, and gives a fix for each problem.

It does what a worker and a notebook do, with the same settings, and leaves nothing behind. It does
not check what only an administrator may see (feature flags, other users).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mousetrap.amqp.publisher import Publisher
from mousetrap.broker import probe
from mousetrap.broker.management import held_back_lines
from mousetrap.display.formats import counted
from mousetrap.errors import MousetrapError, SettingsError
from mousetrap.job_queue import delete, drain, ping
from mousetrap.model.message import Message
from mousetrap.model.topology import Declaration
from mousetrap.runs.former_queues import current_queues, leftovers, renames
from mousetrap.runs.run_lock import stale_runs
from mousetrap.runtime import clock, randomness
from mousetrap.runtime.interrupt import Waiter
from mousetrap.settings import Settings

ANSWER_TIMEOUT = 3.0  # seconds for each answer of the broker
ADDRESSES_TIMEOUT = 9.0  # seconds for all addresses of a host together
IMPORT_TIMEOUT = 30.0  # seconds for another interpreter to import mousetrap; a cold disk is slow
OTHER_DISTRIBUTION = "mousetrap"  # a tool of others that hides the mouse pointer
OLDEST_RABBITMQ = (3, 10)  # the oldest version that the tests run on

FindingState = Literal["good", "bad", "note"]


@dataclass(frozen=True)
class Finding:
    """The result of one check, and the fix if it found a problem."""

    what: str  # "login"
    state: FindingState  # a note may be intended
    text: str
    fix: str = ""


def examine(environment: Mapping[str, str] | None = None) -> Iterator[Finding]:
    """Yield each finding as soon as it is there; without a broker, what can be checked without.

    Reads the settings from *environment* (default: this process's). Takes up to half a minute,
    whatever the broker does; each of three other interpreters may take as long to start.
    """
    try:
        settings = Settings.from_environment(environment)
    except SettingsError as error:
        yield _bad("settings", error)
    else:
        yield Finding("settings", "good", f"{settings.url}, namespace {settings.namespace!r}")
        yield from _broker(
            settings.replace(connect_timeout=ANSWER_TIMEOUT, confirm_timeout=ANSWER_TIMEOUT)
        )
    yield from _interpreters()
    yield from _other_distribution()
    yield _stale_runs()


# ---- the broker ----------------------------------------------------------------------------------


def _broker(settings: Settings) -> Iterator[Finding]:
    yield from _addresses(settings)
    greeting = probe.version(settings, ANSWER_TIMEOUT)
    if greeting is None:
        try:
            ping(settings, ANSWER_TIMEOUT)
        except MousetrapError as error:  # it says what answers there instead
            yield _bad("broker", error)
        return
    yield _version(greeting)
    publisher = Publisher(settings)
    try:
        publisher.open()
        yield Finding("login", "good", f"user {settings.user!r} in vhost {settings.vhost!r}")
        yield from _rights(publisher, settings)
        yield from _leftovers(settings)
    except (MousetrapError, TimeoutError) as error:
        yield _bad("login", error)
    finally:
        publisher.close(1.0)


def _addresses(settings: Settings) -> Iterator[Finding]:
    """Try each address that the host's name stands for, one after the other, as clients do."""
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
    except OSError:
        fix = "check RABBITMQ_HOST (or RABBITMQ_URL), or the network"
        yield Finding("address", "bad", f"no host is called {settings.host!r}", fix)
        return
    tried = []
    deadline = clock.monotonic() + ADDRESSES_TIMEOUT
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as client:
            client.settimeout(min(ANSWER_TIMEOUT, max(0.1, clock.remaining(deadline))))
            name = f"{address[0]!s} port {address[1]!s}"
            try:
                client.connect(address)
            except OSError as error:
                tried.append((name, error.strerror or "no answer"))
            else:
                tried.append((name, ""))
    is_open = any(not problem for _, problem in tried)
    for name, problem in tried:
        if not problem:
            yield Finding("address", "good", f"{name}: something listens")
        elif is_open:
            text = f"{name}: {problem}; clients try the others"
            yield Finding("address", "note", text)
        else:
            fix = "start a broker (mousetrap broker up), or check RABBITMQ_HOST and RABBITMQ_PORT"
            yield Finding("address", "bad", f"{name}: {problem}", fix)


def _version(greeting: str) -> Finding:
    numbers = [int(part) for part in greeting.rpartition(" ")[2].split(".")[:2] if part.isdigit()]
    if greeting.startswith("RabbitMQ") and tuple(numbers) < OLDEST_RABBITMQ:
        fix = f"use RabbitMQ {'.'.join(map(str, OLDEST_RABBITMQ))} or newer: mousetrap broker up"
        return Finding(
            "version",
            "bad",
            f"{greeting} is older than the versions that mousetrap is tested with",
            fix,
        )
    return Finding("version", "good", greeting)


def _rights(publisher: Publisher, settings: Settings) -> Iterator[Finding]:
    """Do what a flow does: declare, publish with a confirm, consume, delete, publish events."""
    name = f"doctor-{randomness.new_id()[:8]}"
    topology = settings.topology
    queue = topology.wire_name(name)
    try:
        publisher.declare(
            [Declaration(queue, {"x-expires": 60_000}), *topology.events_queue(name)[1:2]]
        )
        receipt = publisher.publish(Message({"from": "doctor"}), name)
        Waiter().wait_for(
            lambda: receipt.state != "waiting" or publisher.connection.state == "blocked",
            ANSWER_TIMEOUT,
        )
        if publisher.connection.state == "blocked":
            fix = "drain or purge queues, or give it more memory or disk: see rabbitmqctl status"
            reason = (
                f"the broker is {publisher.connection.alarm} and accepts no messages (an alarm)"
            )
            yield Finding("alarm", "bad", reason, fix)
            return
        receipt.wait(ANSWER_TIMEOUT)
        yield Finding("alarm", "good", "none: the broker accepts messages")
        found = drain(name, n=1, timeout=ANSWER_TIMEOUT, settings=settings)
        if [message.data for message in found] != [{"from": "doctor"}]:
            reason = "the message did not come back"
            raise MousetrapError(f"{reason}: look for another program in this namespace")
    except (MousetrapError, TimeoutError, ValueError) as error:
        if "ACCESS_REFUSED" in str(error) and f"'{queue}'" in str(error):
            text = "may not declare queues: workers use those that exist; runs and checks cannot"
            fix = (
                "mousetrap topology STAGE ... prints what an administrator has to make, and the "
                "permissions (rabbitmqctl set_permissions)"
            )
            yield Finding("rights", "note", text, fix)
        else:
            yield _bad("rights", error)
    else:
        yield Finding("rights", "good", "may declare, publish, consume and publish events")
    finally:
        _delete(name, settings)


def _leftovers(settings: Settings) -> Iterator[Finding]:
    """Report what a change of a stage on this machine left: messages, and ids of another name."""
    for rename in renames(settings):
        text, _, fix = str(rename).partition("; keep")
        yield Finding("stage names", "note", text, f"keep{fix}")
    for each in leftovers(settings, ANSWER_TIMEOUT):
        text, _, fix = str(each).partition(": ")
        yield Finding("former queues", "note", text, fix)
    for line in held_back_lines(current_queues(settings), settings):
        text, _, fix = line.partition("; ")
        yield Finding("retries", "note", text, fix)


def _delete(queue: str, settings: Settings) -> None:
    try:
        delete(queue, settings=settings, timeout=ANSWER_TIMEOUT)
    except MousetrapError:
        return  # the queue expires by itself


# ---- interpreters --------------------------------------------------------------------------------


def _interpreters() -> Iterator[Finding]:
    """Check that the interpreters which run the notebooks and tests can import mousetrap."""
    interpreter = f"{sys.executable} (Python {sys.version.split()[0]})"
    yield Finding("interpreter", "good", interpreter)
    fix = f"install it there, or use the program beside {sys.executable}: pip install mousetrap-mq"
    for what, python in (
        ("kernel", _kernel_python()),
        ("papermill", _python_of("papermill")),
        ("pytest", _python_of("pytest")),
    ):
        if python is None:
            text = "not installed here: pip install 'mousetrap-mq[project]' brings it"
            yield Finding(what, "note", text)
            continue
        problem = _import_problem(python)
        is_same = Path(python).resolve() == Path(sys.executable).resolve()
        if problem:
            yield Finding(what, "bad", f"{python} cannot import mousetrap ({problem})", fix)
        else:
            yield Finding(what, "good", "this interpreter" if is_same else python)


def _kernel_python() -> str | None:
    """Return the interpreter of the kernel `python3`, which notebooks use; None without Jupyter."""
    if importlib.util.find_spec("jupyter_client") is None:
        return None
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        spec = KernelSpecManager().get_kernel_spec("python3")
    except NoSuchKernel:
        return None
    program = str(spec.argv[0])
    if program in ("python", "python3", "python{}.{}".format(*sys.version_info)):
        return sys.executable  # as jupyter_client does, without looking at the PATH
    return shutil.which(program) or program


def _python_of(program: str) -> str | None:
    """Return the interpreter of the *program* that a shell would run; None if there is none."""
    folders = os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)])
    found = shutil.which(program, path=folders)
    if found is None:
        return None
    with Path(found).open("rb") as file:
        first = file.readline(500).decode(errors="replace").strip()
    words = first.removeprefix("#!").split()
    if not first.startswith("#!") or not words or "python" not in words[-1]:
        return sys.executable  # not a script: on Windows, such programs are next to their Python
    return shutil.which(words[-1]) or words[-1]


def _import_problem(python: str) -> str:
    """Return why *python* cannot import mousetrap, "" if it can; in a folder without a checkout."""
    try:
        done = subprocess.run(
            [python, "-c", "import mousetrap"], cwd=tempfile.gettempdir(), capture_output=True,
            text=True, stdin=subprocess.DEVNULL, timeout=IMPORT_TIMEOUT, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = done.stderr.strip().splitlines() or ["no reason given"]
    return lines[-1][:200] if done.returncode else ""


def _other_distribution() -> Iterator[Finding]:
    """Report the program called `mousetrap` on the package index, which is not this project."""
    try:
        other = importlib.metadata.distribution(OTHER_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return
    text = (
        f"'{OTHER_DISTRIBUTION}' {other.version} is installed here: another project, which may "
        f"overwrite the files and the command of this one, 'mousetrap-mq'"
    )
    python = f"{sys.executable} -m pip"
    fix = (
        f"{python} uninstall {OTHER_DISTRIBUTION} mousetrap-mq, then {python} install mousetrap-mq"
    )
    yield Finding("other mousetrap", "bad", text, fix)


def _stale_runs() -> Finding:
    try:
        stale = stale_runs()
    except SettingsError as error:
        return _bad("stale runs", error)
    if stale:
        names = ", ".join(stale[:3]) + (f" and {len(stale) - 3} more" if len(stale) > 3 else "")
        text = f"left behind by {counted(len(stale), 'killed run')} of this user: {names}"
        return Finding("stale runs", "note", text, "mousetrap sweep deletes their queues")
    return Finding("stale runs", "good", "none: no killed run of this user has left queues behind")


def _bad(what: str, error: Exception) -> Finding:
    """Split an error of the package: what happened, a colon, what to do next."""
    text, _, fix = str(error).partition(": ")
    return Finding(what, "bad", text, fix)
