"""Commands that SIGINT or SIGTERM ends at any moment."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from rig.checker import History
from rig.trial import trial_counts
from support.waiting import wait_for

from mousetrap.amqp.publisher import Publisher
from mousetrap.fault_injection.proxy import Proxy
from mousetrap.job_queue import declare, depth, drain
from mousetrap.model.message import Message
from mousetrap.model.topology import Queue

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
