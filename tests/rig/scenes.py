"""Small complete stories that the soak test plays again and again, under its random faults.

Each has queues of its own and returns how many messages it sent, or 0 if the faults kept it from
beginning. It fails if a message was lost. What is under test connects through the proxy; what
checks it connects directly and tries again until the broker answers.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import pika
from support.postgres import Postgres
from support.processes import other_process
from support.waiting import wait_for

import mousetrap
from mousetrap import Sink, stage
from mousetrap.amqp.publisher import Publisher
from mousetrap.errors import MousetrapError
from mousetrap.job_queue import declare, delete, drain, open_channel
from mousetrap.model.message import Message, current_message
from mousetrap.model.topology import Queue
from mousetrap.settings import Settings
from mousetrap.worker.worker import Worker

PATIENCE = 240.0  # seconds; a full queue is tried again after 180 by RabbitMQ
RELAY = Path(__file__).with_name("relay_workers.py").read_text()
REPORT = re.compile(r"([\d,]+) of its messages are not confirmed")


@dataclass
class Place:
    """Where stories play: *settings* lead through the proxy, *direct* past it."""

    settings: Settings
    direct: Settings
    random: Random
    postgres: Postgres
    live_runs: set[str] = field(default_factory=set)  # namespaces of all runs that were live
    dead_runs: set[str] = field(default_factory=set)  # of those whose process was killed

    def moved(self) -> Place:
        """Return the same place with a namespace of its own."""
        namespace = f"{self.direct.namespace}-{os.urandom(4).hex()}"
        return replace(
            self,
            settings=self.settings.replace(namespace=namespace),
            direct=self.direct.replace(namespace=namespace),
        )

    def until_it_works(self, action: Callable[[], Any]) -> Any:
        """Call *action* until the broker lets it through; return what it returns."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return action()
            except (MousetrapError, OSError, pika.exceptions.AMQPError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)  # the broker is away

    def declare(self, *queues: Queue | str) -> None:
        self.until_it_works(lambda: declare(*queues, settings=self.direct))

    def delete(self, *queues: Queue | str) -> None:
        self.until_it_works(lambda: delete(*queues, settings=self.direct))

    def send(self, queue: str, data: list[object]) -> None:
        """Publish *data*, each until the broker confirms it, with itself as its id."""
        messages = [Message(each, id=str(each)) for each in data]

        def send() -> None:
            with Publisher(self.direct) as publisher:
                publisher.publish_until_confirmed(messages, queue)

        self.until_it_works(send)

    def worker(self, *arguments: Any, **options: Any) -> Worker:
        """Return a worker that runs."""
        return self.until_it_works(lambda: Worker(*arguments, self.settings, **options).start())

    def taken(self, queue: str, expected: set[str]) -> Counter[str]:
        """Take messages from *queue* until all of *expected* were there, or for long."""
        found: Counter[str] = Counter()

        def take() -> None:
            drain(queue, settings=self.direct, idle=1.0, timeout=10.0,
                  on_message=lambda each: found.update([str(each.data)]))  # fmt: skip

        deadline = time.monotonic() + PATIENCE
        while True:
            self.until_it_works(take)
            if expected <= found.keys() or time.monotonic() > deadline:
                return found

    def run_script(self, script: str) -> tuple[str, str, int]:
        done = subprocess.run(
            [sys.executable, "-c", script], env=os.environ | self.settings.to_environment(),
            capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        return done.stdout, done.stderr, done.returncode


SEND = """
import atexit, sys, threading
sent = []
atexit.register(lambda: print(len(sent), flush=True))  # first, so it runs last
from mousetrap import Message
from mousetrap.amqp.publisher import Publisher
publisher = Publisher().open()
for n in range(500):
    publisher.publish(Message(str(n)), "ended")
    sent.append(n)
"""


def script_ends(here: Place) -> int:
    """What a script published is in the queue, or its last line counts it (F36)."""
    here.declare("ended")
    end = here.random.choice(["", "sys.exit(3)", "raise ValueError('the script fails')"])
    out, err, _ = here.run_script(SEND + end)
    sent = int(out.split()[-1]) if out.split() else 0
    reported = sum(int(each.replace(",", "")) for each in REPORT.findall(err))
    found: set[str] = set()
    deadline = time.monotonic() + 20
    while len(found) < sent - reported and time.monotonic() < deadline:
        found |= here.taken("ended", set()).keys()
    assert len(found) >= sent - reported, (sent, reported, len(found), err[-2000:])
    here.delete("ended")
    return sent


FORK = """
import os, signal, sys
from mousetrap import Message
from mousetrap.amqp.publisher import Publisher
from mousetrap.errors import MousetrapError
publisher = Publisher().open()
child = os.fork()
if child == 0:
    signal.alarm(30)  # a child that hangs is killed by it
    try:
        publisher.publish(Message("child"), "forked")
    except MousetrapError:
        os._exit(7)
    os._exit(1)
_, status = os.waitpid(child, 0)
print("child", os.waitstatus_to_exitcode(status), flush=True)
publisher.publish_until_confirmed([Message(str(n)) for n in range(100)], "forked")
print("sent", flush=True)
"""


def forked(here: Place) -> int:
    """A publisher opened before a fork raises in the child and works in its parent (F35)."""
    here.declare("forked")
    out, err, _ = here.run_script(FORK)
    expected = {str(n) for n in range(100)} if "sent" in out else set()
    assert "child" not in out or "child 7" in out, (out, err)
    found = here.taken("forked", expected)
    assert expected <= found.keys()
    here.delete("forked")
    return len(expected)


def retry_queue_deleted(here: Place) -> int:
    """A retry queue that somebody deletes is declared again (F39)."""
    queue = Queue("undone", (0.2, 0.2, 0.2, 0.2))
    ids = [f"{n}" for n in range(10)]
    here.declare(queue.name, queue.quarantine, "undone.out")

    def fails_first(id: str) -> str:
        if current_message.get().attempt == 1:
            raise ValueError("no luck")
        return id

    found: Counter[str] = Counter()
    with here.worker(queue, fails_first, writes="undone.out"):
        for round in (["first"], ids):
            here.send(queue.name, round)
            found += here.taken("undone.out", set(round))
            here.delete(queue.retry_queue(0.2))
    assert found.keys() >= {"first", *ids}, found
    here.delete(queue, "undone.out")
    return 1 + len(ids)


def routed(here: Place) -> int:
    """A header ``CC`` acts once for each publish, not for retries and dead letters (F32)."""
    queue = Queue("routed", (0.05,))
    here.declare(queue.name, queue.quarantine, "copied")
    copied = here.direct.topology.wire_name("copied")
    attempts = 0

    def publish() -> None:
        nonlocal attempts
        properties = pika.BasicProperties(
            message_id="cc", headers={"CC": [copied]}, delivery_mode=2
        )
        with open_channel(here.direct) as channel:
            channel.confirm_delivery()
            attempts += 1
            wire_name = here.direct.topology.wire_name(queue.name)
            channel.basic_publish("", wire_name, b'"cc"', properties)

    def fail(id: str) -> None:
        raise ValueError("no luck")

    worker = here.worker(queue, fail)
    try:
        here.until_it_works(publish)
        dead = here.taken(queue.dead, {"cc"})
    finally:
        worker.stop()
    copies = here.taken("copied", {"cc"})["cc"]
    assert dead["cc"] >= 1
    assert 1 <= copies <= attempts, (copies, attempts)
    here.delete(queue, "copied")
    return 1


@stage(reads="work")
def relay(n: int) -> None: ...


@stage(reads="archive")
def archive(n: int) -> None: ...


def settled(here: Place) -> int:
    """`settle` returns when worker processes have handled what their handlers sent (F41)."""
    os.environ["RIG_RELAY"] = "send"
    jobs, handled, has_begun = 20, 0, False
    try:
        with contextlib.ExitStack() as stack:
            run = stack.enter_context(
                mousetrap.run([relay, archive], here.settings, workers="none")
            )
            stack.enter_context(other_process(run.settings, RELAY))
            has_begun = True
            inside = replace(here, direct=here.direct.replace(namespace=run.namespace))
            inside.send("work", list(range(jobs)))
            run.settle(timeout=PATIENCE)
            handled = run.ledger.counts()["archive"]["done"]
        here.live_runs.add(run.namespace)  # it deleted its queues itself
    except (MousetrapError, AssertionError):
        if has_begun and not handled:
            raise
        # the broker was away at the start, or when the queues were to be deleted: `sweep` does that
    assert handled >= jobs or not has_begun, handled
    return handled and jobs


def taken_until_a_signal(here: Place) -> int:
    """What `mousetrap drain` has not printed when a signal ends it is left in its queue (F43)."""
    here.declare("taken")
    ids = {f"{n:04d}" for n in range(300)}
    here.send("taken", sorted(ids))
    process = subprocess.Popen(
        [sys.executable, "-m", "mousetrap", "drain", "taken", "--json"],
        env=os.environ | here.settings.to_environment(), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(here.random.uniform(0.3, 2.0))  # the moment is the subject
    process.send_signal(here.random.choice([signal.SIGINT, signal.SIGTERM]))
    output, errors = process.communicate(timeout=60)
    printed = set(re.findall(r'"id": "(\d{4})"', output))
    left = here.taken("taken", ids - printed)
    assert "Traceback" not in errors or not printed, errors
    assert printed | left.keys() == ids, (sorted(ids - printed - left.keys()), errors)
    here.delete("taken")
    return len(ids)


def stored(here: Place) -> int:
    """Results reach a database that is frozen for seconds (F49)."""
    queue = Queue("stored", (0.5,) * 60)
    ids = [f"{n}" for n in range(12)]
    here.declare(queue.name, queue.quarantine)
    with Sink(here.postgres.url(), timeout=2.0) as sink:
        here.until_it_works(lambda: sink.store(0, Message(id="first")))
        worker = here.worker(queue, sink.store, concurrency=3)
        try:
            with here.postgres.frozen(), ThreadPoolExecutor(1) as pool:
                sending = pool.submit(here.send, queue.name, ids)
                time.sleep(here.random.uniform(1, 6))  # it is frozen for so long
            sending.result(PATIENCE)
            wait_for(lambda: here.until_it_works(lambda: len(sink)) == 1 + len(ids), PATIENCE)
        finally:
            worker.stop()
    here.delete(queue)
    return len(ids)


KILLED = """
import sys
import mousetrap
def nothing(n: int) -> None: ...
with mousetrap.run(mousetrap.stage(reads="killed")(nothing)) as run:
    run.send(1)
    print(run.namespace, flush=True)
    sys.stdin.read()
"""


def killed_run(here: Place) -> int:
    """A run whose process is killed is found by `sweep` (F47)."""
    with subprocess.Popen(
        [sys.executable, "-c", KILLED], env=os.environ | here.settings.to_environment(),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        namespace = process.stdout.readline().strip()
        process.kill()
    if not namespace:  # the broker was away
        return 0
    here.dead_runs.add(namespace)
    return 1


SWEEPER = """
import json, sys, threading
from mousetrap import Settings
from mousetrap.errors import MousetrapError
from mousetrap.runs.run_lock import sweep
settings = Settings.from_environment().replace(connect_timeout=1.0)
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
found = set()
while True:
    is_last = ended.is_set()
    found.update(each.namespace for each in sweep(settings))
    if is_last:
        break
    ended.wait(0.2)
print(json.dumps(sorted(found)))
"""


@contextlib.contextmanager
def sweeping(settings: Settings, found: set[str]):
    """Sweep again and again in a process, until the block ends; add what it took for dead."""
    process = subprocess.Popen(
        [sys.executable, "-c", SWEEPER], env=os.environ | settings.to_environment(),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield
        output, _ = process.communicate(timeout=120)
        found.update(json.loads(output))
    finally:
        process.kill()
        process.wait(10)


SCENES = (script_ends, forked, retry_queue_deleted, routed, settled, taken_until_a_signal, stored,
          killed_run)  # fmt: skip
