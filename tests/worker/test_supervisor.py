"""``mousetrap work --processes N``: which processes are replaced, and that none is left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest
from support.waiting import wait_for

from mousetrap.amqp.publisher import Publisher
from mousetrap.job_queue import declare, depth, drain, open_channel
from mousetrap.model.message import Message
from mousetrap.model.topology import Queue
from mousetrap.settings import Settings
from mousetrap.worker.supervisor import Supervisor

FLOW = """
import os, sys, threading
from mousetrap import stage

@stage(reads="work", writes="out", retry_delays=())
def work(order: str) -> int:
    "Do what the message says, and return the process id."
    word, _, argument = order.partition(" ")
    if word in ("exit", "crash") and not os.path.exists("it was done"):
        open("it was done", "w").close()
        os._exit(int(argument)) if word == "exit" else os.kill(os.getpid(), int(argument))
    if word == "wait":
        print("begun", flush=True)
        threading.Event().wait(float(argument))
    if word == "spin":
        n = int(argument)
        while n:
            n -= 1
    return os.getpid()
"""


@pytest.fixture
def start(settings, tmp_path):
    """Start ``mousetrap work``; it and its children are killed at the end of the test."""
    (tmp_path / "flow.py").write_text(FLOW)
    declare(Queue("work", ()), "out", settings=settings)
    running = []

    def start(*arguments, stage="flow:work", settings=settings, **environment):
        process = Watched(
            [sys.executable, "-m", "mousetrap", "work", stage, *map(str, arguments)],
            cwd=tmp_path, env=os.environ | settings.to_environment() | environment,
        )  # fmt: skip
        running.append(process)
        return process

    yield start
    for process in running:
        children = process.children()
        process.kill()
        process.wait(10)
        for pid in children:  # there are none, unless the test failed
            end(pid)


class Watched(subprocess.Popen):
    """A process whose output a test can wait for."""

    def __init__(self, command, **options):
        super().__init__(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, **options,
        )  # fmt: skip
        self.output = ""
        self._said = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.stdout:
            with self._said:
                self.output += line
                self._said.notify_all()

    def says(self, text, times=1, timeout=20.0):
        """Wait until its output contains *text* that many times."""
        with self._said:
            assert self._said.wait_for(lambda: self.output.count(text) >= times, timeout), (
                self.output
            )

    def ends(self, timeout):
        """Wait until it exits; return its exit code when all its output was read."""
        code = self.wait(timeout)
        self._reader.join(5)
        return code

    def children(self):
        """Return the pids of its running children."""
        try:
            with open(f"/proc/{self.pid}/task/{self.pid}/children") as file:
                return [int(pid) for pid in file.read().split()]
        except FileNotFoundError:
            return []


def end(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def send(settings, *data):
    with Publisher(settings) as publisher:
        publisher.publish_until_confirmed([Message(each) for each in data], "work")


def results(settings, number, timeout=20.0):
    return [m.data for m in drain("out", number, timeout=timeout, settings=settings)]


def consumers(settings, number):
    wait_for(lambda: depth("work", settings).consumers == number)


# ---- processes that end are replaced ------------------------------------------------------------


def test_wait_until_consuming_says_how_many_consume(settings):
    """It returns when all do; without a broker it says that none does, and what to do."""
    with Supervisor({"mousetrap.run_fetch_worker:fetch": 2}, settings) as workers:
        workers.wait_until_consuming(30)
        assert workers.statistics()["consuming"] == 2

    with (
        Supervisor({"mousetrap.run_fetch_worker:fetch": 1}, settings.replace(port=1)) as workers,
        pytest.raises(TimeoutError, match="0 of 1 worker processes consume after 1 s: mousetrap"),
    ):
        workers.wait_until_consuming(1.0)


def test_processes_share_the_work(start, settings):
    """Two processes: one line at the start, and the sum of both at the end."""
    process = start("--processes", 2, "--prefetch", 1)
    consumers(settings, 2)
    send(settings, *["wait 0.1"] * 20)
    pids = set(results(settings, 20))
    process.says("2 processes of flow:work")
    process.terminate()

    assert process.ends(15) == 0
    assert len(pids) == 2
    assert "flow:work: 20 done, 0 retried, 0 dead, 0 reconnects, 0 replaced" in process.output


def test_a_killed_child_is_replaced_and_its_message_is_handled_again(start, settings):
    """After SIGKILL another process starts, with one line of output, and handles the message."""
    process = start("--processes", 1)
    consumers(settings, 1)
    send(settings, "wait 1")
    process.says("begun")
    [child] = process.children()
    os.kill(child, signal.SIGKILL)
    [pid] = results(settings, 1)

    process.terminate()
    assert process.ends(15) == 0
    assert pid != child
    assert process.output.count(f"work-0 (pid {child}) ended with exit code -9 (SIGKILL") == 1
    assert "1 replaced" in process.output


@pytest.mark.parametrize(
    ("order", "says"), [("exit 7", "exit code 7"), ("exit 2", "exit code 2"),
                        ("exit 0", "exit code 0"), ("crash 11", "-11 (SIGSEGV)")],
)  # fmt: skip
def test_a_handler_that_ends_its_process_does_not_end_the_supervisor(start, settings, order, says):
    """After `os._exit` with any code, our own too, or a crash in C, the process is replaced."""
    process = start("--processes", 2)
    consumers(settings, 2)
    send(settings, order)
    process.says(says)
    send(settings, "wait 0")

    assert len(results(settings, 2)) == 2
    assert process.poll() is None


# ---- a configuration that cannot work ends the supervisor ---------------------------------------


@pytest.mark.parametrize("stage", ["fetc", "no.such:stage", "flow:nothing"])
def test_a_wrong_stage_ends_the_supervisor_with_one_message(start, stage):
    """A wrong name is no reason to restart, and is reported once, not once for each process."""
    process = start("--processes", 4, stage=stage)

    assert process.ends(20) == 2
    assert process.output.count("error: ") == 2  # the child's reason, and the supervisor's
    assert "as it is configured" in process.output
    assert "next" not in process.output


def test_a_wrong_password_ends_the_supervisor(start, settings):
    """Access refused: exit code 4, one attempt."""
    process = start("--processes", 3, settings=settings.replace(password="wrong"))

    assert process.ends(20) == 4
    assert process.output.count("RABBITMQ_PASSWORD_FILE") == 1
    assert "wrong" not in process.output


def test_a_queue_with_changed_arguments_ends_the_supervisor(start, settings):
    """A configuration error that occurs later, in all processes, has exit code 5 as well."""
    process = start("--processes", 2)
    consumers(settings, 2)
    name = settings.topology.wire_name("work")
    with open_channel(settings) as channel:
        channel.queue_delete(name)
        channel.queue_declare(name, durable=True, arguments={"x-max-length": 3})
        # cancelled consumers declare the queue at once: either they or this test were first
        process.says("cannot work as it is configured")

    assert process.ends(20) == 5


def test_processes_wait_for_a_broker_that_starts_late(start, settings, proxy):
    """While no broker answers, each try is reported; later the processes work."""
    proxy.refuse()
    process = start("--processes", 2, settings=proxy.settings,
                    MOUSETRAP_CONNECT_TIMEOUT="0.5")  # fmt: skip
    process.says("found no broker; the next try is in", 2, timeout=30)
    proxy.accept()
    send(settings, "wait 0")

    assert len(results(settings, 1)) == 1
    consumers(settings, 2)


# ---- stopping -----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_all_children(start, settings, number):
    """One signal to the parent: messages in progress are finished, the others go back, code 0."""
    send(settings, *["wait 1"] * 6)
    process = start("--processes", 2, "--prefetch", 1)
    process.says("begun", 2)
    process.send_signal(number)

    assert process.ends(15) == 0
    assert depth("out", settings).messages + depth("work", settings).messages == 6
    assert depth("out", settings).messages >= 2


def test_a_second_signal_ends_all_at_once(start, settings):
    """Two signals: parent and children exit at once; the message is delivered again."""
    send(settings, "wait 60")
    process = start("--processes", 2)
    process.says("begun")
    children = process.children()
    process.terminate()
    threading.Event().wait(0.3)  # else the two signals may be merged into one
    process.terminate()

    assert process.ends(3) == 128 + signal.SIGTERM
    wait_for(lambda: not any(map(is_running, children)), 2)
    wait_for(lambda: depth("work", settings).messages == 1)


def test_message_of_a_handler_that_exceeds_the_stop_timeout_is_given_back(start, settings):
    """An orderly stop has exit code 0, and the message is in its queue, uncounted."""
    send(settings, "wait 60")
    process = start("--processes", 1, "--grace", 0.5)
    process.says("begun")
    process.terminate()

    assert process.ends(8) == 0
    wait_for(lambda: "given back" in process.output)
    [message] = drain("work", settings=settings)
    assert message.losses == 0


def test_a_killed_parent_leaves_no_child(start, settings):
    """SIGKILL of the parent: the children finish their messages and exit."""
    send(settings, "wait 1", "wait 1")
    process = start("--processes", 2, "--prefetch", 1)
    process.says("begun", 2)
    children = process.children()
    process.kill()

    assert len(children) == 2
    wait_for(lambda: not any(map(is_running, children)))
    assert depth("out", settings).messages == 2


def test_a_killed_parent_leaves_no_child_that_is_connecting(start):
    """A child that is still connecting exits when its standard input closes."""
    with socket.create_server(("127.0.0.1", 0)) as dumb:
        silent = Settings(host="127.0.0.1", port=dumb.getsockname()[1])
        process = start("--processes", 1, settings=silent, MOUSETRAP_CONNECT_TIMEOUT="600")
        dumb.accept()
        children = process.children()
        process.kill()

        assert len(children) == 1
        wait_for(lambda: not any(map(is_running, children)), 10)


def test_the_sum_is_json_on_request(start, settings):
    """With --json, the last line on stdout is JSON, whatever handlers print."""
    send(settings, "wait 0", "wait 0")
    process = start("--processes", 2, "--json")
    results(settings, 2)
    process.terminate()

    assert process.ends(15) == 0
    now = json.loads(process.output.strip().splitlines()[-1])
    assert (now["done"], now["processes"], now["replaced"]) == (2, 2, 0)
