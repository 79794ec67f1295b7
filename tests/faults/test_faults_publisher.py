"""Faults of what is published: headers that act, grow or cannot be shown; processes that end."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal

import pika
import pytest
from rig import work_stage
from rig.brokers import requested_version
from rig.trial import LONG, Trial, trial_counts
from support.waiting import wait_for

from mousetrap.amqp.process_end import EXIT_TIMEOUT
from mousetrap.amqp.publisher import Publisher
from mousetrap.errors import LimitReached
from mousetrap.flows.dead_letters import replay
from mousetrap.job_queue import declare, depth, drain, open_channel
from mousetrap.model.headers import DROPPED, MAX_FOREIGN_HEADERS, ROUTED
from mousetrap.model.message import Message
from mousetrap.model.topology import Queue
from mousetrap.worker.worker import Worker

WORK = Queue("work", work_stage.DELAYS)


@pytest.fixture
def trial(settings):
    with Trial(settings, WORK) as trial:
        yield trial


def publish(trial, id, headers, **properties):
    """Publish a job for *id* as plain pika does, with *headers* and other properties."""
    properties = pika.BasicProperties(message_id=id, headers=headers, **properties)
    with open_channel(trial.settings) as channel:
        channel.confirm_delivery()
        channel.basic_publish("", trial.wire_name("work"), b'"%s"' % id.encode(), properties)
    trial.history.attempted.add(id)
    trial.history.confirmed.add(id)


# ---- headers that make the broker act ------------------------------------------------------------


@pytest.mark.fault("F32")
@trial_counts(5, 50)
def test_routed_by_header(trial, fault_row, times):
    """``CC`` and ``BCC`` act once: not with a retry, a dead letter, a replay or a return."""
    copied = trial.wire_name("copied")
    handled = Counter()
    dead = {}
    trial.on_dead_letter = lambda each: dead.setdefault(each.id, each)
    declare("copied", settings=trial.settings)

    def fail(id: str) -> None:
        handled[id] += 1
        raise ValueError("no luck")

    with Worker(WORK, fail, trial.settings, concurrency=4) as worker:
        for n in range(times):
            name = ("CC", "BCC")[n % 2]
            publish(trial, f"{n}", {name: [copied], "tenant": "x"})
        worker.wait_until(dead=times, timeout=60)
        assert replay("work", settings=trial.settings) == times
        worker.wait_until(dead=2 * times, timeout=60)
    trial.settle()

    attempts = 2 * (1 + len(work_stage.DELAYS))  # before the replay and after it
    assert handled == dict.fromkeys(trial.history.attempted, attempts)
    assert Counter(each.id for each in drain("copied", settings=trial.settings)) == dict.fromkeys(
        trial.history.attempted, 1
    )
    # what the broker removes before it delivers a message cannot be shown
    assert dead["0"].headers[ROUTED] == {"CC": [copied]}
    assert all(each.headers["tenant"] == "x" for each in dead.values())
    fault_row.add(trial.drain_queues(), times)


def test_properties_that_act_are_not_sent_again(trial):
    """A retry outlives its time to live, is persistent, and is accepted from another user."""
    acting = {"expiration": "60000", "user_id": trial.settings.user, "delivery_mode": 1,
              "priority": 9, "correlation_id": "c", "reply_to": "work"}  # fmt: skip
    counted = {"x-delivery-count": 15, "x-acquired-count": 15, "x-match": "all", "x-delay": 5000,
               "x-stream-offset": 7, "x-death": [{"queue": trial.wire_name("work"), "count": 9}],
               }  # fmt: skip
    publish(trial, "fail-1", counted, **acting)
    with work_stage.work.worker(trial.settings) as worker:
        worker.wait_until(dead=1)

    with open_channel(trial.settings) as channel:
        _, found, _ = channel.basic_get(trial.wire_name(WORK.dead), auto_ack=True)
    kept = {name for name, value in vars(found).items() if value is not None}
    assert kept == {"content_type", "correlation_id", "delivery_mode", "headers", "message_id",
                    "priority", "reply_to", "timestamp"}  # fmt: skip
    assert found.delivery_mode == 2
    assert {
        "x-match": "all",
        "x-delay": 5000,
        "x-stream-offset": 7,
    }.items() <= found.headers.items()
    assert not {"x-death", "x-delivery-count", "x-acquired-count"} & found.headers.keys()


# ---- headers that grow ---------------------------------------------------------------------------

LONG_TEXTS = {"CJK": "漢", "emoji": "😀", "accent": "é", "ASCII": "x", "a lone surrogate": "\udcff",
              "combining": "e\u0301"}  # fmt: skip


@pytest.mark.fault("F34")
@trial_counts(10, 100)
def test_large_headers(trial, fault_row, times):
    """A message with headers that barely fit dies with its reason; the connection stays open."""
    texts = list(LONG_TEXTS.values())
    dead = {}
    trial.on_dead_letter = lambda each: dead.setdefault(each.id, each)

    def work(id: str) -> str:
        if not id.startswith("fail"):
            return id
        text = texts[int(id.removeprefix("fail-")) % len(texts)]
        deep = len(id) * 1_000

        def raise_deep(left: int) -> None:
            if left:
                raise_deep(left - 1)
            raise ValueError(text * 42_000)

        raise_deep(deep // 1000)
        return id

    with Worker(WORK, work, trial.settings, writes="out", concurrency=2) as worker:
        for n in range(times):
            text = texts[n % len(texts)].encode(errors="replace").decode()
            fill = text * (125_000 // len(text.encode()))  # nearly all that fits one frame
            publish(trial, f"fail-{n}", {"fill": fill, "tenant": "x"})
            publish(trial, f"good-{n}", None)
        worker.wait_until(dead=times, done=times, timeout=120)
        reconnects = worker.statistics().reconnects
    trial.settle()

    assert reconnects == 0
    assert len(dead) == times
    for each in dead.values():
        assert each.reason.startswith("ValueError: ")
        assert "in raise_deep" in each.traceback
        assert each.headers["tenant"] == "x"
        assert each.headers[DROPPED] == "values that would not fit one frame: fill"
    fault_row.add(trial.drain_queues(), times)


def test_small_frames(rabbit_settings, node_setting):
    """Where the broker's frames are small, a dead letter still has its reason; nothing is lost."""
    node_setting("frame_max", 8192)
    with Trial(rabbit_settings, WORK) as trial, work_stage.work.worker(trial.settings) as worker:
        dead = {}
        trial.on_dead_letter = lambda each: dead.setdefault(each.id, each)
        for n in range(5):
            publish(trial, f"fail-{n}", {"fill": "漢" * 2_300, "tenant": "x", "more": "y" * 900})
        worker.wait_until(dead=5)
        trial.settle()

        assert worker.statistics().reconnects == 0
        for each in dead.values():
            assert each.reason == "ValueError: no luck"
            assert each.headers["tenant"] == "x"
            assert "fill" in each.headers[DROPPED]


def test_headers_beyond_the_frame_are_refused(trial):
    """What could never be sent is refused by name, and its neighbours are confirmed."""
    headers = {"book": "漢" * MAX_FOREIGN_HEADERS}
    with Publisher(trial.settings) as publisher:
        before = publisher.publish(Message(1), "work")
        large = publisher.publish(Message(2, headers=headers), "work")
        wrong = publisher.publish(Message(3, headers={"n": 2**63}), "work")
        endless = publisher.publish(Message(3, headers={"x": float("inf")}), "work")
        after = publisher.publish(Message(4), "work")
        publisher.flush()
        assert (before.state, after.state) == ("confirmed", "confirmed")
        assert large.state == wrong.state == endless.state == "refused"
        assert "bytes" in large.reason
        assert "'n'" in wrong.reason
        assert publisher.connection.reconnects == 0


# ---- header values at the limits of their types --------------------------------------------------


def nested(depth):
    value = {}
    for n in range(depth):
        value = {"t": value} if n % 2 else [value]
    return {"deep": value}


CARRIED = {
    "min": -(2**63), "max": 2**63 - 1, "small": -(2**31), "zero": 0, "true": True, "void": None,
    "pi": 3.141592653589793, "tiny": 5e-324, "huge": 1.7976931348623157e308, "minus 0": -0.0,
    "decimal": Decimal("-21474836.48"), "scale": Decimal("1.50"),
    "places": Decimal((0, (1,), -255)), "epoch": datetime(1970, 1, 1, tzinfo=UTC),
    "last": datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), "bytes": b"\x00\xff", "no bytes": b"",
    "no text": "", "nul": "a\x00b", "": "no name", "k" * 255: "long name", "table": {"": {}},
    "array": [None, [1, [True, "x", {"y": [1.5]}]], b"z"], **nested(40),
}  # fmt: skip


def test_header_values_are_carried(trial):
    """Through a retry, the dead letter and a replay, each value arrives as it was sent."""
    publish(trial, "fail-1", CARRIED | {"fine": 1})
    with work_stage.work.worker(trial.settings) as worker:
        worker.wait_until(dead=1)
        assert replay("work", settings=trial.settings) == 1
        worker.wait_until(dead=2)
    wait_for(lambda: depth(WORK.dead, trial.settings).messages == 1)
    [dead_letter] = drain(WORK.dead, settings=trial.settings)

    found = {name: dead_letter.headers[name] for name in CARRIED}
    assert found == CARRIED
    assert list(map(str, found.values())) == list(map(str, CARRIED.values()))  # 1.50, -0.0
    assert DROPPED not in dead_letter.headers


# ---- exceptions that cannot be shown -------------------------------------------------------------


class NamelessMeta(type):
    """The class has no name that can be read."""

    def __getattribute__(cls, name):
        if name in ("__name__", "__qualname__", "__module__"):
            raise SystemExit("no name")
        return super().__getattribute__(name)


def exceptions():
    """Return exceptions by name, each with something that raises when it is asked for."""

    class TextRaises(Exception):
        raised: BaseException = RuntimeError()

        def __str__(self):
            raise self.raised

        __repr__ = __str__

    class Nameless(TextRaises, metaclass=NamelessMeta):
        pass

    class Causes(Exception):
        @property
        def __cause__(self):
            raise SystemExit(3)

        @property
        def __notes__(self):
            raise SystemExit(4)

        @property
        def __class__(self):
            raise SystemExit(5)

        @property
        def __traceback__(self):
            raise SystemExit(6)

    class Stubborn(str):
        __slots__ = ()

        def __getitem__(self, _):
            raise SystemExit(7)

        encode = __len__ = __getitem__

    class Texts(Exception):
        def __str__(self):
            return Stubborn("stubborn")

    def endless():
        error = ValueError("round")
        error.__cause__ = OSError("and round")
        error.__cause__.__cause__ = error
        return error

    def speechless(raised):
        return type("TextRaises", (TextRaises,), {"raised": raised})()

    class Recursive(Exception):
        def __str__(self):
            return str(self)

    noted = ValueError("noted")
    noted.__notes__ = [speechless(SystemExit(2)), 5]
    chain = ValueError("chained")
    for n in range(2_000):
        outer = ValueError(f"chained {n}")
        outer.__cause__ = chain
        chain = outer
    return [
        *map(speechless, (RuntimeError(), SystemExit(0), KeyboardInterrupt(), GeneratorExit(),
                          BaseException(), RecursionError(), MemoryError())),
        Nameless(), Causes(), Texts(), endless(), Recursive(), noted, chain,
        ValueError("x" * 30_000_000), ExceptionGroup("many", [speechless(SystemExit(1))] * 50),
        SystemExit(0), KeyboardInterrupt(), GeneratorExit(), StopIteration(), AssertionError(),
        SyntaxError("bad", ("f", 1, 1, speechless(SystemExit(8)))),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad \udcff"),
    ]  # fmt: skip


@pytest.mark.fault("F42")
@trial_counts(1, 20)
@pytest.mark.parametrize("is_async", [False, True], ids=["threads", "async"])
def test_exceptions_that_cannot_be_shown(trial, fault_row, times, is_async):
    """Each is dead-lettered with a reason, and the worker handles the next message."""
    raised = exceptions()

    def work(id: str) -> str:
        if id.startswith("fail"):
            raise raised[int(id.removeprefix("fail-")) % len(raised)]
        return id

    async def work_async(id: str) -> str:
        return work(id)

    handler = work_async if is_async else work
    failing = times * len(raised)
    with Worker(WORK, handler, trial.settings, writes="out", concurrency=2) as worker:
        for n in range(failing):
            trial.send([f"fail-{n}", f"good-{n}"])
        # not `wait_until`: pytest cannot show an error that one of these exceptions has caused
        wait_for(lambda: worker.error or worker.statistics().dead == failing, 110)
        assert str(worker.error) == "None"
        worker.wait_until(done=failing)
        assert worker.statistics().reconnects == 0
        assert repr(worker)
        assert worker._repr_html_()
    trial.settle()

    reasons = trial.history.dead
    assert len(reasons) == failing
    assert reasons["fail-1"] == "TextRaises: (its __str__ raised SystemExit)"
    assert reasons["fail-7"] == "Nameless: (its __str__ raised RuntimeError)"
    assert all(reasons.values())
    fault_row.add(trial.drain_queues(), failing)


# ---- limits of connections and channels ----------------------------------------------------------

LIMITS = {  # how to set the limit to nothing, how to lift it, and what the worker then reports
    "user connections": (["set_user_limits", "DEV_USER", '{"max-connections": 0}'],
                         ["clear_user_limits", "DEV_USER", "all"], "user connection limit"),
    "vhost connections": (["set_vhost_limits", "-p", "/", '{"max-connections": 0}'],
                          ["clear_vhost_limits", "-p", "/"], "connection limit"),
    "user channels": (["set_user_limits", "DEV_USER", '{"max-channels": 0}'],
                      ["clear_user_limits", "DEV_USER", "all"], "channels opened for user"),
    "node connections": (["eval", "application:set_env(rabbit, connection_max, 0)."],
                         ["eval", "application:set_env(rabbit, connection_max, infinity)."],
                         "node connection limit"),
    "node channels": (["eval", "application:set_env(rabbit, channel_max_per_node, 0)."],
                      ["eval", "application:set_env(rabbit, channel_max_per_node, infinity)."],
                      "channels opened on node"),
}  # fmt: skip


@pytest.mark.fault("F40")
@pytest.mark.parametrize(
    ("limit", "times"),
    [(each, 1) for each in LIMITS if not each.startswith("node")]
    + [pytest.param(each, 20, marks=LONG) for each in LIMITS],
)
def test_limit_reached(rabbit, rabbit_settings, fault_row, limit, times):
    """A worker and a publisher that meet a limit go on once there is room, and name the limit."""
    if limit.startswith("node") and requested_version() == "3.10":
        pytest.skip("RabbitMQ 3.10 has no such limit")
    reach, lift, name = LIMITS[limit]
    settings = rabbit_settings.replace(heartbeat=5)
    with Trial(settings, WORK) as trial, work_stage.work.worker(settings) as worker:
        for n in range(times):
            trial.send([f"before {n}"])
            worker.wait_until(done=2 * n + 1)
            rabbit.rabbitmqctl(*reach)
            try:
                rabbit.rabbitmqctl("close_all_connections", "the limit was reached")
                wait_for(lambda: name in worker.statistics().problem, 30)
                assert worker.error is None
                assert "permission" not in worker.statistics().problem
                with pytest.raises(LimitReached, match=name):
                    depth("work", settings)
                with pytest.raises(LimitReached, match=name):
                    Publisher(settings.replace(connect_timeout=0.5)).open()
            finally:
                rabbit.rabbitmqctl(*lift)
            started = time.monotonic()
            worker.wait_until(done=2 * n + 1, timeout=60)
            trial.history.attempted.add(f"after {n}")
            with Publisher(settings) as publisher:
                publisher.publish_until_confirmed(
                    [Message(f"after {n}", id=f"after {n}")], "work", timeout=60
                )
            trial.history.confirmed.add(f"after {n}")
            worker.wait_until(done=2 * n + 2, timeout=60)
            fault_row.heal_seconds.append(time.monotonic() - started)
        assert worker.error is None
        trial.settle()
        fault_row.add(trial.drain_queues(), times)


@pytest.fixture
def node_setting(rabbit):
    """Set a setting of the running node, and set it back after the test."""
    defaults = {"channel_max": 2047, "frame_max": 131_072}
    changed = set()

    def change(name, value):
        changed.add(name)
        rabbit.rabbitmqctl("eval", f"application:set_env(rabbit, {name}, {value}).")

    yield change
    for name in changed:
        change(name, defaults[name])


def test_channel_limit_of_a_connection(rabbit_settings, node_setting):
    """Where a connection may have one channel, a worker does without the second one."""
    node_setting("channel_max", 1)
    with Trial(rabbit_settings, WORK) as trial, work_stage.work.worker(trial.settings) as worker:
        trial.send(["1"])
        worker.wait_until(done=1)
        assert worker.error is None
        with pytest.raises(LimitReached, match="channel_max"):
            depth("work", trial.settings)


# ---- processes that fork, and processes that end -------------------------------------------------

FORK = """
import os, sys, signal
{before}
child = os.fork()
if child == 0:
    signal.alarm(30)  # a child that hangs is killed by it, which the test sees
    {in_child}
_, status = os.waitpid(child, 0)
print("child", os.waitstatus_to_exitcode(status))
{in_parent}
"""
BEFORE = """
from mousetrap import Message, declare, depth
from mousetrap.amqp.publisher import Publisher
from mousetrap.errors import MousetrapError
from mousetrap.job_queue import open_channel
from mousetrap.sink import Sink
from mousetrap.worker.worker import Worker
publisher = Publisher().open()
publisher.publish(Message("parent 0"), "work").wait()
channel = open_channel()
sink = Sink(os.environ["RIG_SINK"])
sink.store(0, Message(0, id="parent 0"))
worker = Worker("other", print).start()
unopened = Publisher()
"""
IN_PARENT = """
receipts = [publisher.publish(Message(f"parent {n}"), "work") for n in range(1, 100)]
publisher.flush()
sink.store(1, Message(1, id="parent 1"))
assert all(each.confirmed for each in receipts)
assert channel.is_open and channel.queue_declare("again", exclusive=True)
assert (publisher.connection.reconnects, worker.statistics().reconnects) == (0, 0)
assert worker.statistics().consuming
worker.stop()
print("parent unharmed")
"""
USES = {  # what a child does with what its parent opened; each raises at once, or works
    "publish": "for n in range(500): publisher.publish(Message(f'child {n}'), 'work')",
    "publish many": "publisher.publish_many([Message('child')], 'work')",
    "channel": "channel.basic_publish('', 'work', b'1')",
    "declare": "channel.queue_declare('again')",
    "depth": "print(depth('work')); raise MousetrapError('works')",
    "worker": "worker.wait(5)",
    "unopened": "unopened.open().publish(Message('child'), 'work').wait(5);"
                "unopened.close(); raise MousetrapError('works')",
    "sink": "sink.store(2, Message(2, id='child')); raise MousetrapError('works')",
    "stop": "worker.stop(); publisher.close(); channel.close(); sink.close();"
            "raise MousetrapError('works')",
}  # fmt: skip


def run_script(script, settings, timeout=60, **environment):
    """Run *script* in a process of its own; return its output, its errors and its exit code."""
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | settings.to_environment() | environment,
        capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
    return done.stdout, done.stderr, done.returncode


@pytest.mark.fault("F35")
@trial_counts(1, 10)
@pytest.mark.parametrize("end", ["sys.exit(0)", "os._exit(0)"], ids=["exit", "os-exit"])
def test_used_after_fork(trial, fault_row, tmp_path, times, end):
    """A child of `os.fork` gets an error at its first call, or works; its parent is unharmed."""
    uses = list(USES.values())
    lines = [
        f"try:\n        {use}\n        print('silent', {n})\n"
        f"    except MousetrapError as error:\n        print('raised', {n}, error)"
        for n, use in enumerate(uses)
    ]
    for n in range(times):
        in_child = "\n    ".join([*lines, "sys.stdout.flush()", end])
        script = FORK.format(before=BEFORE, in_child=in_child, in_parent=IN_PARENT)
        out, err, code = run_script(script, trial.settings, RIG_SINK=str(tmp_path / f"{n}.db"))

        assert (err, code) == ("", 0), out
        assert "silent" not in out
        assert out.count("raised") == len(uses), out
        assert out.count("fork") >= 5, out
        assert "child 0\nparent unharmed" in out
    found = Counter(each.data for each in drain("work", settings=trial.settings))
    assert {name: found[name] for name in found if name.startswith("parent")} == {
        f"parent {n}": times for n in range(100)
    }
    assert found["child"] == times  # of the publisher that was opened in the child
    assert len(found) == 101
    fault_row.add(trial.history, times)


SEND = """
import atexit, os, sys, threading
sent = [0]
atexit.register(lambda: print(sent[0], flush=True))  # first, so it runs last
from mousetrap import Message
from mousetrap.amqp.publisher import Publisher
publisher = Publisher().open()
def send(count):
    for n in range(count):
        publisher.publish(Message(n), "work")
        sent[0] += 1
"""
ENDS = {
    "return": "send(2000)",
    "sys.exit": "send(2000); sys.exit(3)",
    "exception": "send(2000); raise ValueError('the script fails')",
    "thread": "threading.Thread(target=send, args=(2000,)).start()",
    "daemon": "threading.Thread(target=send, args=(10**9,), daemon=True).start()\n"
              "while sent[0] < 1000: pass",
    "function": "def main():\n    mine = Publisher().open()\n    global publisher\n"
                "    publisher = mine\n    send(2000)\nmain(); del publisher",
    "multiprocessing": "import multiprocessing\npublisher = None\ndef work(queue):\n"
                       "    global publisher\n    publisher = Publisher().open()\n    send(2000)\n"
                       "    queue.put(sent[0])\n"
                       "context = multiprocessing.get_context('fork')\nqueue = context.Queue()\n"
                       "child = context.Process(target=work, args=(queue,))\nchild.start()\n"
                       "sent[0] = queue.get()\nchild.join()",
}  # fmt: skip
REPORT = re.compile(r"([\d,]+) of its messages are not confirmed")


@pytest.mark.fault("F36")
@trial_counts(1, 20)
@pytest.mark.parametrize("end", ENDS)
def test_script_ends(trial, fault_row, times, end):
    """What a script published before it ended is there, or the last line on stderr counts it."""
    for _ in range(times):
        out, err, code = run_script(SEND + ENDS[end], trial.settings)
        sent = int(out.split()[-1])
        found = drain("work", settings=trial.settings)
        reported = sum(int(each.replace(",", "")) for each in REPORT.findall(err))

        assert code == {"sys.exit": 3, "exception": 1}.get(end, 0)
        assert sent >= 1000
        assert len(found) >= sent
        assert reported == 0, err
    fault_row.add(trial.history, times)


@pytest.mark.fault("F36")
@trial_counts(1, 20)
def test_script_ends_without_an_answer(trial, proxy, fault_row, times):
    """If the broker is silent, the script ends within seconds and says how many are not known."""
    for _ in range(times):
        with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
            gate = f"import socket; socket.create_connection({server.getsockname()}).recv(1)\n"
            script = SEND + "send(1); publisher.flush()\n" + gate + "send(500)"
            ending = pool.submit(run_script, script, proxy.settings)
            gate_of_script, _ = server.accept()
            proxy.hold()
            started = time.monotonic()
            gate_of_script.close()
            out, err, code = ending.result(60)
        proxy.release()

        assert (code, out.split()[-1]) == (0, "501")
        assert REPORT.findall(err) == ["500"], err
        assert time.monotonic() - started < EXIT_TIMEOUT + 5
        drain("work", settings=trial.settings)
    fault_row.add(trial.history, times)
