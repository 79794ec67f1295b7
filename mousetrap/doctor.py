"""Looks for what is wrong with a set-up, from settings to queues: a line and a fix for each.

Asks what a worker and a notebook would ask, with the same settings, and leaves nothing behind.
What only an administrator may see (feature flags, other users) is not looked at.
"""

from __future__ import annotations

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
from mousetrap.errors import MousetrapError, SettingsError
from mousetrap.job_queue import delete, drain, ping
from mousetrap.model.message import Message
from mousetrap.model.topology import Declaration
from mousetrap.runs.run_lock import stale_runs
from mousetrap.runtime import randomness
from mousetrap.runtime.interrupt import Waiter
from mousetrap.settings import Settings

PATIENCE = 3.0  # seconds for each answer of the broker
IMPORT_TIME = 30.0  # seconds for another interpreter to import mousetrap; a cold disk is slow
OLDEST = (3, 10)  # of RabbitMQ, against which we test

FindingState = Literal["good", "bad", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: how it is, and what to do if it should be otherwise."""

    what: str  # "login"
    state: FindingState  # a note may be as it should be
    text: str
    fix: str = ""


def examine(environment: Mapping[str, str] | None = None) -> Iterator[Finding]:
    """Yield what is found, as it is found; without a broker, what can be said all the same.

    Reads the settings from *environment* (default: this process's). Takes up to half a minute.
    """
    try:
        settings = Settings.from_environment(environment)
    except SettingsError as error:
        yield _bad("settings", error)
    else:
        yield Finding("settings", "good", f"{settings.url}, namespace {settings.namespace!r}")
        yield from _broker(settings.replace(connect_timeout=PATIENCE, confirm_timeout=PATIENCE))
    yield from _interpreters()
    yield _leftovers()


# ---- the broker ----------------------------------------------------------------------------------


def _broker(settings: Settings) -> Iterator[Finding]:
    yield from _addresses(settings)
    greeting = probe.version(settings, PATIENCE)
    if greeting is None:
        try:
            ping(settings, PATIENCE)
        except MousetrapError as error:  # which says who else is there
            yield _bad("broker", error)
        return
    yield _version(greeting)
    publisher = Publisher(settings)
    try:
        publisher.open()
        yield Finding("login", "good", f"user {settings.user!r} in vhost {settings.vhost!r}")
        yield from _rights(publisher, settings)
    except (MousetrapError, TimeoutError) as error:
        yield _bad("login", error)
    finally:
        publisher.close(1.0)


def _addresses(settings: Settings) -> Iterator[Finding]:
    """Try each address that the host's name stands for, one after the other as clients do."""
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
    except OSError:
        fix = "check RABBITMQ_HOST (or RABBITMQ_URL), or the network"
        yield Finding("address", "bad", f"no host is called {settings.host!r}", fix)
        return
    tried = []
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as wire:
            wire.settimeout(PATIENCE)
            name = f"{address[0]!s} port {address[1]!s}"
            try:
                wire.connect(address)
            except OSError as error:
                tried.append((name, error.strerror or "no answer"))
            else:
                tried.append((name, ""))
    is_open = any(not problem for _, problem in tried)
    for name, problem in tried:
        if not problem:
            yield Finding("address", "good", f"{name}: somebody listens")
        elif is_open:
            text = f"{name}: {problem}; clients try the others"
            yield Finding("address", "note", text)
        else:
            fix = "start a broker (mousetrap broker up), or check RABBITMQ_HOST and RABBITMQ_PORT"
            yield Finding("address", "bad", f"{name}: {problem}", fix)


def _version(greeting: str) -> Finding:
    numbers = [int(part) for part in greeting.rpartition(" ")[2].split(".")[:2] if part.isdigit()]
    if greeting.startswith("RabbitMQ") and tuple(numbers) < OLDEST:
        fix = f"use RabbitMQ {'.'.join(map(str, OLDEST))} or newer: mousetrap broker up"
        return Finding("version", "bad", f"{greeting} is older than what we test with", fix)
    return Finding("version", "good", greeting)


def _rights(publisher: Publisher, settings: Settings) -> Iterator[Finding]:
    """Do what a flow does: declare, publish with a confirm, take, delete, tell fates."""
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
            PATIENCE,
        )
        if publisher.connection.state == "blocked":
            fix = "drain or purge queues, or give the broker more: rabbitmqctl status says of what"
            reason = f"the broker is {publisher.connection.alarm} and takes no messages (an alarm)"
            yield Finding("alarm", "bad", reason, fix)
            return
        receipt.wait(PATIENCE)
        yield Finding("alarm", "good", "none: the broker takes messages")
        found = drain(name, n=1, timeout=PATIENCE, settings=settings)
        if [message.data for message in found] != [{"from": "doctor"}]:
            raise MousetrapError("the message did not come back: look who uses this namespace")
    except (MousetrapError, TimeoutError, ValueError) as error:
        yield _bad("rights", error)
    else:
        yield Finding("rights", "good", "may declare, publish, consume and tell fates")
    finally:
        _forget(name, settings)


def _forget(queue: str, settings: Settings) -> None:
    try:
        delete(queue, settings=settings)
    except MousetrapError:
        return  # it expires


# ---- interpreters --------------------------------------------------------------------------------


def _interpreters() -> Iterator[Finding]:
    """Ask the interpreters that would run our notebooks and tests whether they know mousetrap."""
    here = f"{sys.executable} (Python {sys.version.split()[0]})"
    yield Finding("interpreter", "good", here)
    fix = f"install it there, or use the program beside {sys.executable}: pip install mousetrap-mq"
    for what, python in (
        ("kernel", _kernel_python()),
        ("papermill", _python_of("papermill")),
        ("pytest", _python_of("pytest")),
    ):
        if python is None:
            text = "not installed here: pip install 'mousetrap-mq[test]' brings it"
            yield Finding(what, "note", text)
            continue
        problem = _import_problem(python)
        is_same = Path(python).resolve() == Path(sys.executable).resolve()
        if problem:
            yield Finding(what, "bad", f"{python} cannot import mousetrap ({problem})", fix)
        else:
            yield Finding(what, "good", "this interpreter" if is_same else python)


def _kernel_python() -> str | None:
    """The interpreter of the kernel `python3`, which notebooks use; None if there is no Jupyter."""
    if importlib.util.find_spec("jupyter_client") is None:
        return None
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        spec = KernelSpecManager().get_kernel_spec("python3")
    except NoSuchKernel:
        return None
    program = str(spec.argv[0])
    if program in ("python", "python3", "python{}.{}".format(*sys.version_info)):
        return sys.executable  # as jupyter_client does, whatever the PATH says
    return shutil.which(program) or program


def _python_of(program: str) -> str | None:
    """The interpreter that runs the *program* that a shell would find; None if there is none."""
    beside = os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)])
    found = shutil.which(program, path=beside)
    if found is None:
        return None
    with Path(found).open("rb") as file:
        first = file.readline(500).decode(errors="replace").strip()
    words = first.removeprefix("#!").split()
    if not first.startswith("#!") or not words or "python" not in words[-1]:
        return sys.executable  # a program of another kind: Windows has such beside its Python
    return shutil.which(words[-1]) or words[-1]


def _import_problem(python: str) -> str:
    """Import mousetrap there, from a folder where no checkout can be taken for it."""
    try:
        done = subprocess.run(
            [python, "-c", "import mousetrap"], cwd=tempfile.gettempdir(), capture_output=True,
            text=True, stdin=subprocess.DEVNULL, timeout=IMPORT_TIME, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = done.stderr.strip().splitlines() or ["no reason given"]
    return lines[-1][:200] if done.returncode else ""


def _leftovers() -> Finding:
    try:
        left = stale_runs()
    except OSError as error:
        fix = "make it writable, or name another in XDG_STATE_HOME"
        return Finding("leftovers", "bad", f"the state folder cannot be used ({error})", fix)
    if left:
        names = ", ".join(left[:3]) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
        text = f"{len(left)} runs were killed and left queues behind: {names}"
        return Finding("leftovers", "note", text, "mousetrap sweep; they expire by themselves, too")
    return Finding("leftovers", "good", "none: no killed run has left queues behind")


def _bad(what: str, error: Exception) -> Finding:
    """Our errors say what happened, and after the first colon what to do next."""
    text, _, fix = str(error).partition(": ")
    return Finding(what, "bad", text, fix)
