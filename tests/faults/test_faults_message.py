"""Faults of messages: they crash the worker, cannot be decoded, have false headers, come twice."""

from __future__ import annotations

import gzip
import json
import pickle
import signal
from collections import Counter
from decimal import Decimal

import pika
import pytest
from rig import work_stage
from rig.trial import Trial, trial_counts
from support.waiting import wait_for

from mousetrap.errors import UndecodableMessage
from mousetrap.job_queue import depth, open_channel
from mousetrap.model.decoding import decode
from mousetrap.model.headers import (
    ATTEMPT,
    DEAD_SINCE,
    JOB,
    LOSSES,
    PARENT,
    REASON,
    RETRIES,
    TIMEOUTS,
)
from mousetrap.model.poison_messages import MAX_LOSSES
from mousetrap.model.topology import Queue
from mousetrap.sink import Sink

WORK = Queue("work", work_stage.DELAYS)
ENDS = {"exit": 0, "crash": -signal.SIGSEGV}  # the exit codes of the workers that crash


@pytest.fixture
def trial(settings):
    with Trial(settings, WORK) as trial:
        yield trial


@pytest.mark.fault("F16")
@trial_counts(200, 1000)
@pytest.mark.parametrize(("kind", "crashing"), [("classic", "exit"), ("quorum", "crash")])
def test_crashing_message(settings, worker_pool, fault_row, kind, crashing, times):
    """A message that crashes workers is dead-lettered after `MAX_LOSSES`; all others are done."""
    # nobody answers the questions, and this test asks five times
    waits = {"RIG_SURVIVOR_TIMEOUT": "1"} if times < 1000 else {}
    with Trial(settings.replace(queue_type=kind), WORK) as trial:
        others = [str(n) for n in range(times)]
        trial.send([*others[:20], crashing, *others[20:]])
        workers = []
        while trial.missing:
            while sum(each.is_running for each in workers) < 2:
                workers.append(worker_pool.start(trial.settings, "--concurrency", "4", **waits))
            trial.collect()
        deaths = [each.code for each in workers if not each.is_running]
        worker_pool.kill_all()
        trial.finish()
        history = trial.drain_queues()
    assert list(history.dead) == [crashing]
    assert history.dead[crashing].startswith(f"WorkerLost: {MAX_LOSSES} workers were lost")
    assert deaths == [ENDS[crashing]] * MAX_LOSSES
    fault_row.add(history)


# ---- bodies that cannot be decoded, headers that are false ---------------------------------------

UNREADABLE = [
    b"", b"null", b"5", b"[]", b"{}", b"true", b"hello", b"'a'", b"{bad json", b'"open',
    b'"a" "b"', b"NaN", b"Infinity", b"-Infinity", b"[NaN]", b"1e999", b"9" * 5000,
    b"-" + b"9" * 5000, b"0." + b"9" * 5000, b"\xff\xfe", b'"\xff"', b'"\xc3("',
    b'"\xed\xa0\x80"', b'\xef\xbb\xbf"a"', '"a"'.encode("utf-16"), '"a"'.encode("utf-32"),
    b"\x00", b'"\x00"', b'"a\nb"', b'"\\x"', b'"\\ud800"', b"[" * 10_000 + b"]" * 10_000,
    b"[" * 10_000, b'{"a":' * 10_000 + b"1" + b"}" * 10_000, b'{"a":' * 10_000,
    b"x" * (16 * 1024 * 1024), b"[" + b"1," * 500_000 + b"1]", gzip.compress(b"0" * 50_000_000),
    gzip.compress(b'"a"'), pickle.dumps("a"), b"!!python/object/apply:os.system",
    b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a 'a'>]><x>&a;</x>",
]  # fmt: skip
DAMAGED = [  # gzip that is cut off, has a wrong byte, or is too large when it is decompressed
    gzip.compress(b'"a"')[:-1], gzip.compress(b'"a"')[:-8] + bytes(8), b"\x1f\x8b",
    gzip.compress(b"0" * 50_000_000),
]  # fmt: skip
ABSURD = [None, True, -1, 0, 10**9, 2**63 - 1, -(2**63), Decimal("1.5"), "x", "", b"\xff",
          [1, [2]], {"a": {"b": None}}, "x" * 9_000]  # fmt: skip
OURS = (
    ATTEMPT,
    JOB,
    PARENT,
    RETRIES,
    LOSSES,
    TIMEOUTS,
    REASON,
    DEAD_SINCE,
    "x-death",
    "x-delivery-count",
)
FORGED = [
    *[dict.fromkeys(OURS, value) for value in ABSURD],
    {"x" * 100: "x" * 100_000},
    {f"header-{n}": n for n in range(2000)},
    {"x-death": [{"count": 10**9, "queue": "work", "reason": "expired"}] * 100},
]
LYING = [
    {"content_type": "application/x-python-pickle"}, {"content_encoding": "gzip"},
    {"priority": 255}, {"timestamp": 2**62}, {"timestamp": 0}, {"reply_to": "work"},
    {"correlation_id": "\u202e" * 80}, {"type": "x" * 255}, {"app_id": "<script>"},
    {"message_id": ""},
]  # fmt: skip


def is_readable(body):
    try:
        return isinstance(decode(body, str), str) and bool(body)
    except UndecodableMessage:
        return False


def generated(seeded_random):
    """Return a body and headers: plausible ones, corrupted at random."""
    plausible = [
        json.dumps(f"job {seeded_random.random()}").encode(),
        json.dumps({"a": [1, None, seeded_random.random()]}).encode(),
        seeded_random.randbytes(seeded_random.randrange(200)),
    ]
    body = bytearray(seeded_random.choice(plausible))
    for _ in range(seeded_random.randrange(4)):
        at = seeded_random.randrange(len(body) + 1)
        match seeded_random.randrange(3):
            case 0:
                del body[at : at + seeded_random.randrange(1, 5)]
            case 1:
                body[at:at] = seeded_random.randbytes(seeded_random.randrange(1, 5))
            case _:
                body[at:at] = body[: seeded_random.randrange(50)]
    names = seeded_random.sample(OURS, seeded_random.randrange(4))
    return bytes(body), {name: seeded_random.choice(ABSURD[:-1]) for name in names}


@pytest.mark.fault("F15")
@trial_counts(500, 5000)
def test_malformed(trial, worker_pool, fault_row, seeded_random, times):
    """A malformed message is dead-lettered unchanged, or done; the worker goes on."""
    worker = worker_pool.start(trial.settings, "--concurrency", "4")
    fixed = [(body, {}, {}) for body in UNREADABLE]
    fixed += [(body, {}, {"content_encoding": "gzip"}) for body in DAMAGED]
    fixed += [(None, headers, {}) for headers in FORGED]
    fixed += [(None, {}, properties) for properties in LYING]
    assert len(fixed) >= 60
    unreadable: dict[str, bytes] = {}

    def check(dead_letter):
        assert dead_letter.body == unreadable.pop(dead_letter.id)
        assert dead_letter.reason.startswith("UndecodableMessage: ")

    trial.on_dead_letter = check
    history, name = trial.history, trial.wire_name("work")
    with open_channel(trial.settings) as channel:
        channel.confirm_delivery()
        for n in range(len(fixed) + times):
            id, neighbour = f"bad-{n}", f"good-{n}"
            body, headers, properties = (
                fixed[n] if n < len(fixed) else (*generated(seeded_random), {})
            )
            if body is None or is_readable(body):
                body = json.dumps(id).encode()  # with these headers or properties it can be handled
            else:
                unreadable[id] = body
            properties = {"message_id": id} | properties
            for each, what in ((body, pika.BasicProperties(headers=headers, **properties)),
                               (json.dumps(neighbour).encode(),
                                pika.BasicProperties(message_id=neighbour))):  # fmt: skip
                channel.basic_publish("", name, each, what)
            history.attempted |= {id, neighbour}
            history.confirmed |= {id, neighbour}
    trial.settle(120)

    assert worker.is_running
    assert not unreadable
    assert "connected again" not in worker.log.read_text()
    worker.kill(signal.SIGTERM)
    assert worker.wait() == 0
    fault_row.add(trial.drain_queues(), len(fixed) + times)


# ---- duplicates ----------------------------------------------------------------------------------


@pytest.mark.fault("F17")
@trial_counts(500, 10_000)
def test_replayed(trial, proxy, worker_pool, fault_row, seeded_random, tmp_path, times):
    """When every tenth publish is duplicated, each job still has one effect in the sink."""
    replays = Counter()

    def again(_=None):
        replays["planned"] += 1
        proxy.replay(number=seeded_random.randint(1, 19), on_reached=again)

    again()
    sink = str(tmp_path / "effects.db")
    with Trial(proxy.settings, WORK) as sender:
        sender.history = trial.history
        sender.send(str(n) for n in range(times))
    worker = worker_pool.start(proxy.settings, "--concurrency", "4", RIG_SINK=sink)
    trial.settle(600)
    wait_for(lambda: depth("work", trial.settings).messages == 0, 60)
    worker.kill(signal.SIGTERM)
    assert worker.wait() == 0
    history = trial.drain_queues()

    assert (
        sum(history.effects.values()) > times
    )  # messages were handled twice, or results published twice
    assert replays["planned"] > times * 0.15  # one in ten of the publishes of jobs and results
    history.effects = Counter(row["data"] for row in Sink(sink).rows())
    assert history.effects.total() == times
    fault_row.add(history, replays["planned"] - 1)
