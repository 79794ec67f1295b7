"""Commands that a signal ends, and waits for a broker or a database that says nothing."""

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
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
from rig.checker import History
from rig.trial import trial_counts
from support.waiting import wait_for

from mousetrap import broker, run, send, stage
from mousetrap.amqp.publisher import Publisher
from mousetrap.broker import probe
from mousetrap.errors import (
    BrokerUnreachable,
    ConnectionLost,
    NotSettled,
    OutcomeUnknown,
    WireError,
)
from mousetrap.fault_injection.proxy import Proxy
from mousetrap.flows import dead_letters
from mousetrap.job_queue import (
    declare,
    delete,
    delete_unused,
    depth,
    depths,
    drain,
    open_channel,
    peek,
    ping,
    purge,
)
from mousetrap.model.message import Message
from mousetrap.model.topology import Queue
from mousetrap.runs.dead_letter_list import dead
from mousetrap.worker.worker import Worker

# ---- signals -----------------------------------------------------------------------------------

# The handlers of signals are installed by the first statement of `main`: from "ready" on, a signal
# must end the command as documented.
PROGRAM = "import os, mousetrap.__main__ as m; os.write(2, b'ready\\n'); m.main()"
JOBS = 60  # messages in the queue of each trial
STEPS = {  # by command: methods at which the signal is sent, and how often each comes at most
    "drain work --json": [
        ("Connection.StartOk", "to broker", 1), ("Basic.Get", "to broker", 1),
        ("Basic.Deliver", "from broker", JOBS - 1), ("Basic.Ack", "to broker", 2),
        ("Basic.Cancel", "to broker", 1), ("Channel.Close", "to broker", 1),
    ],
    "drain work": [("Basic.Deliver", "from broker", JOBS - 1), ("Basic.Ack", "to broker", 2)],
    "drain work -n 9 --json": [
        ("Basic.Get", "to broker", 9), ("Basic.GetOk", "from broker", 9),
        ("Basic.Ack", "to broker", 9), ("Connection.Close", "to broker", 1),
    ],
    "peek work -n 20": [("Basic.Get", "to broker", 20), ("Basic.Nack", "to broker", 1)],
    "dead list work": [("Basic.GetOk", "from broker", JOBS), ("Basic.Nack", "to broker", 1)],
    "dead replay work --json": [
        ("Queue.Declare", "to broker", 1), ("Basic.Get", "to broker", JOBS),
        ("Basic.Publish", "to broker", JOBS), ("Basic.Ack", "from broker", JOBS // 2),
        ("Basic.Ack", "to broker", JOBS),
    ],
    "dead purge work --yes": [
        ("Queue.Purge", "to broker", 1), ("Queue.PurgeOk", "from broker", 1),
    ],
    "send work {} --count 3000 --json": [
        ("Basic.Publish", "to broker", 3000), ("Basic.Ack", "from broker", 9),
    ],
}  # fmt: skip


class Signalled:
    """One command in a process of its own, on queues of its own, which gets a signal."""

    def __init__(self, settings, command, folder):
        self.folder = folder  # another one than the repository's
        self.settings = settings.replace(namespace=f"{settings.namespace}-{os.urandom(4).hex()}")
        self.command = command
        self.is_dead_command = command.startswith("dead")
        self.ids = {f"{n:08d}" for n in range(JOBS)}
        declare(Queue("work"), settings=self.settings)
        with Publisher(self.settings) as publisher:
            messages = [Message({"n": id}, id=id) for id in sorted(self.ids)]
            queue = "work.dead" if self.is_dead_command else "work"
            publisher.publish_until_confirmed(messages, queue)

    def run(self, number, step, delay):
        """Send the signal *number* at *step* of the protocol, or *delay* seconds after the start.

        Return the exit code, the output, the errors, and whether the signal was sent.
        """
        with Proxy(self.settings) as proxy:
            process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *self.command.split()],
                env=os.environ | proxy.settings.to_environment(), cwd=self.folder,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
            trigger = None
            if step is not None:
                name, direction, n = step
                trigger = proxy.at(
                    name, direction, number=n, action=lambda: process.send_signal(number)
                )
            assert process.stderr.readline() == b"ready\n"
            if step is None:
                threading.Event().wait(delay)
                process.send_signal(number)
            output, errors = process.communicate(timeout=40)
        is_sent = trigger is None or trigger.triggered.is_set()
        return process.returncode, output.decode(), errors.decode(), is_sent

    def left(self, queue):
        """Return the ids that are left in *queue*, once the broker knows that the command ended."""
        wait_for(lambda: depth(queue, self.settings).consumers == 0)
        return [each.id for each in drain(queue, idle=0.5, settings=self.settings)]

    def check(self, output, errors):
        """Compare what the command printed with what is left in the queues."""
        if self.command.startswith("send"):
            self.check_sent(output)
        elif "replay" in self.command:
            replayed = json.loads(output)["replayed"] if output else 0
            assert len(self.left("work")) == replayed
            assert len(self.left("work.dead")) == JOBS - replayed
        elif "purge" in self.command:
            deleted = int(found[1]) if (found := re.search(r"(\d+) deleted", errors)) else 0
            assert len(self.left("work.dead")) == JOBS - deleted
        elif self.command.startswith("drain"):
            pattern = r'"id": "(\d{8})"' if "--json" in self.command else r"(?m)^(\d{8}) "
            printed = re.findall(pattern, output)
            left = self.left("work")
            assert sorted(printed + left) == sorted(self.ids), (output[-300:], errors, left)
            if "--json" in self.command:
                assert len([json.loads(line) for line in output.splitlines()]) == len(printed)
        else:
            queue = "work.dead" if self.is_dead_command else "work"
            assert sorted(self.left(queue)) == sorted(self.ids)

    def check_sent(self, output):
        arrived = len(self.left("work")) - JOBS
        counts = json.loads(output) if output else {"sent": 0, "confirmed": 0}
        assert counts.get("confirmed", 0) == arrived == counts["sent"], counts


@pytest.mark.fault("F43")
@trial_counts(16, 100)
def test_command_ended_by_a_signal(settings, tmp_path, fault_row, seeded_random, times):
    """At any moment: exit code 130 or 143, no traceback, and what is printed is what was taken."""
    commands = list(STEPS)

    def trial(n):
        command = commands[n % len(commands)]
        number = [signal.SIGINT, signal.SIGTERM][n // len(commands) % 2]
        step, delay = None, seeded_random.uniform(0, 1.5)
        if seeded_random.random() < 0.85:
            name, direction, most = seeded_random.choice(STEPS[command])
            step = name, direction, seeded_random.randint(1, most)
        signalled = Signalled(settings, command, tmp_path)
        code, output, errors, is_sent = signalled.run(number, step, delay)
        what = f"{command}, {number!r} at {step or delay}: {code}\n{output[-300:]}\n{errors}"
        assert "Traceback" not in errors, what
        assert "Exception" not in errors, what
        # it may have ended before the signal had an effect
        assert code in (128 + number, 0), what
        signalled.check(output, errors)
        return is_sent

    with ThreadPoolExecutor(3) as pool:
        sent = list(pool.map(trial, range(times)))
    fault_row.add(History(), len(sent))
    fault_row.not_triggered = sent.count(False)
    assert sum(sent) >= 0.7 * times


# ---- a broker that says nothing ----------------------------------------------------------------

CLOSING = 3.0  # seconds that the closing of two silent connections may add to the stop of a worker
MARGIN = 1.0  # seconds that a call may take beyond its time-out
CONNECT = 1.0  # seconds
CONFIRM = 1.5  # seconds
LIMIT = 2.0  # seconds; the time-out of each call that has one


def double(n):
    return 2 * n


DOUBLE = stage(reads="jobs", writes="doubled")(double)
GONE = (BrokerUnreachable, ConnectionLost)
# before a connection is there: what is called with the settings, its time-out, its errors
CONNECTING = {
    "open_channel": (open_channel, CONNECT, GONE),
    "drain": (lambda at: drain("q", timeout=LIMIT, settings=at), LIMIT, GONE),
    "peek": (lambda at: peek("q", settings=at, timeout=LIMIT), LIMIT, GONE),
    "purge": (lambda at: purge("q", at, timeout=LIMIT), LIMIT, GONE),
    "depth": (lambda at: depth("q", at, timeout=LIMIT), LIMIT, GONE),
    "depths": (lambda at: depths(["q"], at, timeout=LIMIT), LIMIT, GONE),
    "declare": (lambda at: declare("q", settings=at, timeout=LIMIT), LIMIT, GONE),
    "delete": (lambda at: delete("q", settings=at, timeout=LIMIT), LIMIT, GONE),
    "delete_unused": (lambda at: delete_unused(["q"], at, timeout=LIMIT), LIMIT, GONE),
    "ping": (lambda at: ping(at, LIMIT), LIMIT, GONE),
    "dead": (lambda at: dead("q", settings=at, timeout=LIMIT), LIMIT, GONE),
    "replay": (lambda at: dead_letters.replay("q", settings=at), CONFIRM, GONE),
    "send": (lambda at: send("q", 1, settings=at), CONNECT, GONE),
    "Worker.start": (lambda at: Worker(Queue("q"), double, at).start(), CONNECT, GONE),
    "Run.start": (lambda at: run(DOUBLE, at).start(), CONNECT, GONE),
    "broker.ensure": (lambda at: broker.ensure("external", at), CONNECT, GONE),
    "overview": (broker.overview, CONNECT, GONE),
    "version": (lambda at: probe.version(at, LIMIT), LIMIT, ()),
}
# after that: also the method at which the broker falls silent, and how often it comes before
CONNECTED = {
    "open_channel": ("Queue.Declare", 2, open_channel, CONFIRM, GONE),
    "drain, first": ("Basic.Get", 1, CONNECTING["drain"][0], LIMIT, GONE),
    "drain, many": ("Basic.Deliver", 30, CONNECTING["drain"][0], LIMIT, GONE),
    "drain, acks": ("Basic.Ack", 2, CONNECTING["drain"][0], LIMIT, GONE),
    "peek": ("Basic.Get", 5, CONNECTING["peek"][0], LIMIT, GONE),
    "purge": ("Queue.Purge", 1, CONNECTING["purge"][0], LIMIT, GONE),
    "depth": ("Queue.Declare", 1, CONNECTING["depth"][0], LIMIT, GONE),
    "declare": ("Queue.Declare", 1, CONNECTING["declare"][0], LIMIT, GONE),
    "delete": ("Queue.Delete", 1, CONNECTING["delete"][0], LIMIT, GONE),
    "ping": ("Basic.Publish", 1, CONNECTING["ping"][0], LIMIT, GONE),
    "dead": ("Basic.Get", 2, CONNECTING["dead"][0], LIMIT, GONE),
    "replay": ("Basic.Publish", 3, CONNECTING["replay"][0], CONFIRM + 1, (*GONE, OutcomeUnknown)),
    "replay, get": ("Basic.Get", 3, CONNECTING["replay"][0], CONFIRM, GONE),
    "send": ("Basic.Publish", 1, CONNECTING["send"][0], CONFIRM + 1, ()),
    "Worker.start": ("Basic.Consume", 1, CONNECTING["Worker.start"][0], CONNECT, GONE),
}


def seconds_of(call, errors, at):
    """Return the seconds that *call* takes; it must raise one of *errors*, if there are any."""
    started = time.monotonic()
    with pytest.raises(errors, match="answer") if errors else nullcontext() as caught:
        call(at)
    return time.monotonic() - started, caught and caught.value


def check_each(rows, check, times):
    """Call *check* with each row, all at the same time; fail with all that was wrong."""
    wrong = []
    with ThreadPoolExecutor(len(rows)) as pool:
        for _ in range(times):
            for name, found in [(name, pool.submit(check, *row)) for name, row in rows.items()]:
                try:
                    found.result(60)
                except (Exception, pytest.fail.Exception) as error:
                    wrong.append(f"{name}: {type(error).__name__} {error}")
    assert not wrong, "\n".join(each[:300] for each in wrong)


@pytest.mark.fault("F48")
@trial_counts(1, 20)
def test_broker_silent_from_the_start(settings, fault_row, times):
    """A port that accepts and says nothing: each wait ends in its time-out with its error."""
    with socket.create_server(("127.0.0.1", 0), backlog=500) as dumb:
        at = settings.replace(
            host="127.0.0.1", port=dumb.getsockname()[1],
            connect_timeout=CONNECT, confirm_timeout=CONFIRM,
        )  # fmt: skip

        def check(call, limit, errors):
            seconds, _ = seconds_of(call, errors, at)
            assert seconds <= limit + MARGIN, f"took {seconds:.1f} s, not {limit:g}"

        check_each(CONNECTING, check, times)
    fault_row.add(History(), times * len(CONNECTING))


@pytest.mark.fault("F48")
@trial_counts(1, 20)
def test_broker_silent_in_the_middle(settings, fault_row, times):
    """A broker that is paused at a step of the protocol: the same, and nothing is lost."""

    def check(method, number, call, limit, errors):
        own = settings.replace(
            namespace=f"{settings.namespace}-{os.urandom(4).hex()}",
            connect_timeout=CONNECT, confirm_timeout=CONFIRM,
        )  # fmt: skip
        ids = {f"{n:08d}" for n in range(JOBS)}
        declare(Queue("q"), settings=own)
        with Publisher(own.replace(confirm_timeout=30.0)) as publisher:
            for queue in ("q", "q.dead"):
                messages = [Message(1, id=id) for id in sorted(ids)]
                publisher.publish_until_confirmed(messages, queue)
        direction = "from broker" if method == "Basic.Deliver" else "to broker"
        with Proxy(own) as proxy:
            silent = proxy.at(
                method, direction, number=number,
                action=lambda: proxy.hold("from broker", "to broker"),
            )  # fmt: skip
            seconds, error = seconds_of(call, errors, proxy.settings)
            silent.wait(0.1)
        assert seconds <= limit + MARGIN, f"took {seconds:.1f} s, not {limit:g}"
        if call in (CONNECTING["drain"][0], CONNECTING["peek"][0], CONNECTING["dead"][0]):
            taken = [each.id for each in getattr(error, "taken", [])]
            left = {name: drain_all(name, own) for name in ("q", "q.dead")}
            assert left["q"] | set(taken) == ids
            assert left["q.dead"] == ids

    check_each(CONNECTED, check, times)
    fault_row.add(History(), times * len(CONNECTED))


def drain_all(queue, settings):
    """Return the ids of all messages, also of those that a lost connection holds for a moment."""
    return {each.id for each in drain(queue, idle=0.7, settings=settings)}


@pytest.mark.fault("F48")
@trial_counts(1, 20)
def test_run_on_a_broker_that_falls_silent(settings, fault_row, times):
    """`settle` raises NotSettled with its table; `results`, `stop` and a worker's stop end."""
    for _ in range(times):
        late = [each for each in waits_of_a_run(settings) if each[2] > each[1] + MARGIN]
        assert late == []
    fault_row.add(History(), times)


def waits_of_a_run(settings):
    """Return the name, the time-out and the seconds of each wait for a broker that is paused."""
    release = threading.Event()

    def wait(n: int) -> int:
        release.wait(20)
        return n

    short = settings.replace(connect_timeout=CONNECT, confirm_timeout=CONFIRM)
    with Proxy(short) as proxy:
        running = run(stage(reads="jobs", writes="out")(wait), proxy.settings).start()
        running.send_many([1, 2, 3])
        worker = running.workers[0]
        wait_for(lambda: worker.unacked == 3)
        proxy.hold("from broker", "to broker")
        started = time.monotonic()
        with pytest.raises(NotSettled, match="could not be read") as caught:
            running.settle(LIMIT)
        seconds = [("settle", LIMIT, time.monotonic() - started)]
        assert len(caught.value.table) == 3
        release.set()
        for name, limit, call in (
            ("results", LIMIT, lambda: running.results(LIMIT)),
            ("Worker.stop", LIMIT + CLOSING, lambda: worker.stop(LIMIT)),
            ("Run.stop", 10.0 + CLOSING, running.stop),
        ):
            started = time.monotonic()
            with pytest.raises((WireError, TimeoutError)):
                call()
            seconds.append((name, limit, time.monotonic() - started))
    return seconds
