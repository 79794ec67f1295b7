"""SIGTERM in every state: `mousetrap work` ends in time, with the right code, and loses nothing.

Its health endpoint distinguishes the states.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest
from support.waiting import wait_for

from mousetrap.amqp.publisher import Publisher
from mousetrap.errors import SettingsError
from mousetrap.job_queue import declare, depth, drain
from mousetrap.model.message import Message
from mousetrap.model.topology import Queue
from mousetrap.settings import Settings
from mousetrap.worker.health import Health
from mousetrap.worker.statistics import STOPPING
from mousetrap.worker.worker import Worker

FLOW = """
import threading
from pathlib import Path
from mousetrap import stage

@stage(reads="work", writes="out", retry_delays=())
def wait(name: str) -> str:
    "Wait until there is a file of that name."
    Path("begun").touch()
    while not Path(name).exists():
        threading.Event().wait(0.01)
    Path("finished").touch()
    return name
"""
WORK = Queue("work", ())
GRACE = 1.0  # seconds
CLOSING = 4.0  # seconds that closing two connections may take, when nobody answers


class Process:
    """``mousetrap work`` with a health endpoint, with or without supervised *processes*."""

    def __init__(self, settings, folder, processes=None, **environment):
        (folder / "flow.py").write_text(FLOW)
        self.folder = folder
        self.log = folder / "log"
        options = ["--grace", str(GRACE), "--health", "0"]
        options += [] if processes is None else ["--processes", str(processes)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mousetrap", "work", "flow:wait", *options],
                cwd=folder, env=os.environ | settings.to_environment() | environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        wait_for(lambda: "health: " in self.log.read_text())
        self.url = re.search(r"health: (\S+)", self.log.read_text())[1]

    def health(self, path=""):
        """Return the HTTP status and the body."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as answer:
            return answer.code, json.load(answer)

    def is_well(self):
        return self.health()[0] == 200

    def reaches(self, name):
        """Wait until the handler has created the file *name*."""
        wait_for(lambda: (self.folder / name).exists())

    def lets_pass(self, name):
        (self.folder / name).touch()

    def terminate(self, number=signal.SIGTERM):
        """Send a signal; return the exit code and the seconds until the exit."""
        started = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(60)
        return code, time.monotonic() - started


@pytest.fixture
def work(tmp_path):
    """Start ``mousetrap work``; it ends with the test."""
    running = []

    def work(settings, processes=None, **environment):
        running.append(Process(settings, tmp_path, processes, **environment))
        return running[-1]

    yield work
    for each in running:
        each.process.kill()
        each.process.wait(10)


def send(settings, *data):
    declare(WORK, "out", settings=settings)
    with Publisher(settings) as publisher:
        publisher.publish_until_confirmed([Message(each) for each in data], "work")


@pytest.fixture(params=[None, 2], ids=["alone", "supervised"])
def processes(request):
    """One process, or two with a supervisor."""
    return request.param


def test_terminated_while_connecting(work, processes):
    """It ends at once, although its connection attempt would last for minutes."""
    with socket.create_server(("127.0.0.1", 0)) as dumb:
        silent = Settings(host="127.0.0.1", port=dumb.getsockname()[1])
        process = work(silent, processes, MOUSETRAP_CONNECT_TIMEOUT="600")
        dumb.accept()
        status, now = process.health()
        code, seconds = process.terminate()

    assert (status, bool(now["connected"]), bool(now["consuming"])) == (503, False, False)
    assert code == 0, process.log.read_text()
    assert seconds < CLOSING


def test_terminated_while_idle(work, settings, processes):
    """Without a message in progress it ends at once."""
    process = work(settings, processes)
    wait_for(process.is_well)
    code, seconds = process.terminate()

    assert code == 0
    assert seconds < CLOSING
    assert depth("work", settings).consumers == 0


def test_terminated_while_handling(work, settings, processes):
    """It finishes the message in progress and its result is confirmed; the rest is requeued."""
    send(settings, "go", "go", "go")
    process = work(settings, processes)
    process.reaches("begun")
    threading.Timer(0.3, process.lets_pass, ["go"]).start()
    code, seconds = process.terminate()

    assert code == 0
    assert seconds < GRACE + CLOSING
    assert depth("out", settings).messages >= 1
    assert depth("out", settings).messages + depth("work", settings).messages == 3


def test_terminated_while_waiting_for_a_confirm(work, settings, proxy, processes):
    """Without a confirm the message is not acked and is delivered again; exit code 1.

    The copy that gives it back may have arrived as well: it has the same id.
    """
    send(settings, "go")
    process = work(proxy.settings, processes)
    process.reaches("begun")
    proxy.hold()
    process.lets_pass("go")
    process.reaches("finished")
    code, seconds = process.terminate()

    assert code == 1
    assert "delivered again" in process.log.read_text()
    assert seconds < GRACE + CLOSING
    proxy.cut()  # a broker that is still writing to a swallowed link learns of its end
    found = []

    def is_delivered_again():
        found.extend(drain("work", settings=settings))
        return found

    wait_for(is_delivered_again)
    assert len({message.id for message in found}) == 1


def test_terminated_while_the_broker_is_away_and_nothing_is_in_progress(
    work, settings, proxy, processes
):
    """A worker that tries to reconnect ends at once after a signal, with exit code 0."""
    process = work(proxy.settings, processes)
    wait_for(process.is_well)
    proxy.refuse()
    proxy.cut()
    wait_for(lambda: not process.is_well())
    status, now = process.health("live")
    code, seconds = process.terminate()

    assert (status, bool(now["connected"])) == (200, False)
    assert code == 0
    assert seconds < CLOSING


def test_terminated_while_the_broker_is_away_and_a_message_is_in_progress(
    work, settings, proxy, processes
):
    """The handler ends, its result cannot be sent, the message is delivered again; code 0."""
    send(settings, "go")
    process = work(proxy.settings, processes)
    process.reaches("begun")
    proxy.refuse()
    proxy.cut()
    wait_for(lambda: not process.is_well())
    process.lets_pass("go")
    process.reaches("finished")
    code, seconds = process.terminate()

    assert code == 0
    assert seconds < GRACE + CLOSING
    wait_for(lambda: depth("work", settings).messages == 1)


@pytest.mark.local
def test_terminated_while_blocked_by_an_alarm(work, node, processes):
    """A memory alarm blocks its result; the message is not acked and is delivered again."""
    settings = node.settings
    send(settings, "go")
    process = work(settings, processes)
    process.reaches("begun")
    node.rabbitmqctl("set_vm_memory_high_watermark", "0")
    process.lets_pass("go")
    process.reaches("finished")
    if processes is None:
        wait_for(lambda: process.health()[1]["state"] == "blocked")
    code, seconds = process.terminate()
    node.rabbitmqctl("set_vm_memory_high_watermark", "0.6")

    assert code == 1
    assert seconds < GRACE + CLOSING
    wait_for(lambda: depth("work", settings).messages == 1)


def test_terminated_twice_ends_at_once(work, settings, processes):
    """A second signal ends it at once with code 128 + 15; the message is delivered again."""
    send(settings, "never")
    process = work(settings, processes)
    process.reaches("begun")
    process.process.terminate()
    wait_for(lambda: not process.is_well())
    if processes is None:
        assert process.health()[1]["problem"] == STOPPING
    code, seconds = process.terminate()

    assert code == 128 + signal.SIGTERM
    assert seconds < 1.0
    wait_for(lambda: depth("work", settings).messages == 1)


# ---- health -----------------------------------------------------------------------------------


def test_health_is_three_facts(settings, proxy):
    """Alive, connected, consuming: before the start, at work, disconnected, and after the end."""
    proxied = Worker(WORK, lambda n: n, proxy.settings)
    facts = [facts_of(proxied)]
    with proxied:
        facts.append(facts_of(proxied))
        proxy.refuse()
        proxy.cut()
        wait_for(lambda: facts_of(proxied) != facts[1])
        wait_for(lambda: not proxied.statistics().connected)
        facts.append(facts_of(proxied))
    facts.append(facts_of(proxied))

    assert facts == [(False,) * 3, (True,) * 3, (True, False, False), (False,) * 3]


def test_health_of_a_worker_that_cannot_go_on(settings):
    """A worker whose executor has crashed is not alive, and `problem` gives the reason."""
    worker = Worker(WORK, lambda n: n, settings).start()
    try:
        worker._on_crash(ZeroDivisionError("a defect"))
        now = worker.statistics()
    finally:
        worker.stop()

    assert (now.alive, now.consuming, now.state) == (False, False, "failed")
    assert "a defect" in now.problem


def test_health_over_http_is_json_for_this_machine_only(work, settings, processes):
    """It answers 200 with JSON on 127.0.0.1 only, and 404 for an unknown path."""
    send(settings, "go")
    process = work(settings, processes)
    process.lets_pass("go")
    assert drain("out", 1, timeout=20, settings=settings)
    wait_for(lambda: process.health()[1].get("done") == 1)
    status, now = process.health()

    assert status == 200
    assert all(now[fact] for fact in ("alive", "connected", "consuming"))
    assert process.url.startswith("http://127.0.0.1:")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(process.url + "metrics", timeout=5)


@pytest.mark.parametrize("place", ["eighty", "70000", "-1", "", "1.2.3.4", "localhost:"])
def test_health_at_a_bad_address_is_refused(place):
    """The error shows how to write a port."""
    with pytest.raises(SettingsError, match="give a port"):
        Health(place, dict)


def test_health_at_a_taken_port_is_refused():
    """The error has the port and the next step."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"127.0.0.1:{port}.*another port"):
            Health(str(port), dict)


def facts_of(worker):
    now = worker.statistics()
    return now.alive, now.connected, now.consuming
