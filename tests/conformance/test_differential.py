"""Random programs observe the same on the embedded broker and on RabbitMQ 4.3, step by step.

`program_runner` says what a step observes, and `programs` how programs are made. A difference is
reduced before it is shown: operations that it does not need are left out, for a bounded time.
"""

from __future__ import annotations

import dataclasses
import os
import time

import programs
import pytest
from client import PASSWORD, USER, Target
from program_runner import ProgramRunner
from rig.seed import session_seed

from mousetrap.embedded_broker import (
    EmbeddedServer,
    channel,
    deliveries,
    exchange,
    message,
    publishes,
    queue,
    vhost,
)

QUICK_PROGRAMS, LONG_PROGRAMS = 200, 2_500
FAULT_PROGRAMS = 1_000  # run on the broker with each of 14 injected faults; 100 found all of them
REPEATS = 20  # a real difference shows each time; the timing of RabbitMQ causes others now and then
REDUCE_TIMEOUT = 60.0  # seconds for reducing one difference


@pytest.fixture(scope="module")
def embedded():
    """A runner on the embedded broker."""
    with EmbeddedServer({USER: PASSWORD}) as server:
        url = f"amqp://{USER}:{PASSWORD}@127.0.0.1:{server.port}"
        runner = ProgramRunner(Target(url, server))
        yield runner
        runner.hang_up()


@pytest.fixture(scope="module")
def rabbitmq(request):
    """A runner on RabbitMQ 4.3: the session's, or the first that MOUSETRAP_CONFORMANCE names."""
    named = [each for each in os.environ.get("MOUSETRAP_CONFORMANCE", "").split() if "//" in each]
    if not named:
        broker = request.getfixturevalue("broker")
        if broker.kind == "embedded":
            pytest.skip("the session's broker is the embedded one")
        named = [broker.settings.to_environment()["RABBITMQ_URL"]]
    targets = [Target(each) for each in named]
    found = next((each for each in targets if each.version == (4, 3)), None)
    if found is None:
        pytest.skip("the embedded broker behaves as RabbitMQ 4.3, and this is another version")
    runner = ProgramRunner(found)
    yield runner
    runner.hang_up()


def draw(count, seed="quick"):
    """Return *count* programs; the same *seed* gives the same programs."""
    return [programs.random_program(f"{seed}/{number}") for number in range(count)]


@pytest.fixture(scope="module")
def recorded(embedded):
    """Programs, each with what it observes on the embedded broker."""
    return [(program, embedded.run(program)) for program in draw(FAULT_PROGRAMS)]


def difference(embedded, rabbitmq, program):
    """Return the first step that differs, as (number, embedded, RabbitMQ); None without one."""
    ours = embedded.run(program)
    theirs = rabbitmq.run(program, ours)
    for step, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        if one != other:
            if ends_a_channel(one) and without_order(one) == without_order(other):
                return None
            return step, one, other
    return None


def ends_a_channel(observed):
    """Whether the broker closed a channel or connection in this step.

    Then RabbitMQ informs each queue separately. If one queue dead-letters into the other, the order
    of their messages is a matter of timing, and so is everything after it. The comparison of such a
    program ends at this step.
    """
    return isinstance(observed["answer"], tuple) and observed["answer"][0].endswith(".Close")


def without_order(observed):
    """Return what was observed in a step, without the order of the deliveries."""
    return {
        part: sorted(map(repr, _flat(value))) if part == "events" else value
        for part, value in observed.items()
    }


def _flat(value):
    """Yield each delivery, and each of the other events, separately."""
    for actor, events in enumerate(value):
        for word, found in events.items():
            by_tag = found[0] if word == "delivered" else {}
            yield from ((actor, tag, each) for tag, some in by_tag.items() for each in some)
            if not by_tag:
                yield actor, word, found


def differs(embedded, rabbitmq, program):
    """Whether the program differs in each of `REPEATS` runs."""
    return all(difference(embedded, rabbitmq, program) for _ in range(REPEATS))


def reduce(embedded, rabbitmq, program):
    """Leave out the operations of *program* that its difference does not need."""
    deadline = time.monotonic() + REDUCE_TIMEOUT
    rabbitmq.delay = 1.5  # seconds: enough, since the difference is known to exist
    size = len(program) // 2
    while size:
        at = 0
        while at < len(program) and time.monotonic() < deadline:
            rest = program[:at] + program[at + size :]
            if difference(embedded, rabbitmq, rest):
                program = rest
            else:
                at += size
        size //= 2
    return program


def fail_with(embedded, rabbitmq, program):
    """Fail, and show the difference and the reduced program that causes it."""
    first = difference(embedded, rabbitmq, program)
    program = reduce(embedded, rabbitmq, program)
    step, ours, theirs = difference(embedded, rabbitmq, program) or first or (0, {}, {})
    lines = [f"    {each}" for each in program]
    for part in ours:
        if ours[part] != theirs[part]:
            lines += [f"step {step}, {part}:", f"    embedded {ours[part]}"]
            lines += [f"    RabbitMQ {theirs[part]}"]
    if first is None:
        lines.append("the difference was there before, and did not show again")
    pytest.fail("\n".join(["a difference:", *lines]), pytrace=False)


@pytest.mark.timeout(300)
def test_random_programs_show_no_difference(embedded, rabbitmq):
    """Answers, deliveries, returns, confirms, errors, counts and remaining messages are equal."""
    for program in draw(QUICK_PROGRAMS):
        if differs(embedded, rabbitmq, program):
            fail_with(embedded, rabbitmq, program)


@pytest.mark.long
@pytest.mark.timeout(3_000)
def test_thousands_of_random_programs_show_no_difference(embedded, rabbitmq):
    """Each session draws other programs; the seed that it prints repeats them."""
    for program in draw(LONG_PROGRAMS, session_seed()):
        if differs(embedded, rabbitmq, program):
            fail_with(embedded, rabbitmq, program)


# ---- does the test notice faults? ----------------------------------------------------------------


def requeue_to_the_end(patch):
    original = queue.Queue._insert

    def insert(self, queued):
        queued.number = next(message._numbers)
        original(self, queued)

    patch.setattr(queue.Queue, "_insert", insert)


def ack_one_message_only(patch):
    original = deliveries.Deliveries.basic_ack

    def ack(self, delivery_tag, multiple):
        original(self, delivery_tag, multiple and delivery_tag == 0)

    patch.setattr(deliveries.Deliveries, "basic_ack", ack)


def prefetch_one_too_many(patch):
    original = channel.Channel.basic_qos

    def qos(self, prefetch_size, prefetch_count, global_qos):
        original(self, prefetch_size, prefetch_count + (prefetch_count > 0), global_qos)

    patch.setattr(channel.Channel, "basic_qos", qos)


def count_deaths_from_zero(patch):
    original = vhost.make_dead_letter

    def make_dead_letter(queued, *others):
        history = queued.message.history
        if history is not None:
            deaths = tuple(each | {"count": 0} for each in history.deaths)
            queued.message.history = dataclasses.replace(history, deaths=deaths)
        return original(queued, *others)

    patch.setattr(vhost, "make_dead_letter", make_dead_letter)


def swap_any_and_all(patch):
    original = exchange.headers_match

    def match(wanted, headers):
        mode = wanted.get("x-match", "all")
        other = {"any": "all", "all": "any"}.get(mode, mode)
        return original(wanted | {"x-match": other}, headers)

    patch.setattr(exchange, "headers_match", match)


def drop_the_newest(patch):
    def drop(self):
        while self._ready and self._is_over(0, 0):
            level = [each for each in self._by_priority.values() if each][-1]
            self._ready -= 1
            self._discard(level.pop(), "maxlen")

    patch.setattr(queue.Queue, "_drop_overflow", drop)


def clear_the_redelivered_flag(patch):
    original = queue.Queue.requeue

    def requeue(self, messages, *, has_failed):
        original(self, messages, has_failed=has_failed)
        for queued in messages:
            queued.is_redelivered = False

    patch.setattr(queue.Queue, "requeue", requeue)


def ignore_priorities(patch):
    original = queue.Queue._insert

    def insert(self, queued):
        queued.priority = 0
        original(self, queued)

    patch.setattr(queue.Queue, "_insert", insert)


def return_nothing(patch):
    original = publishes.Publishes._publish
    patch.setattr(
        publishes.Publishes, "_publish", lambda self, message, _: original(self, message, False)
    )


def confirm_rejected_messages(patch):
    original = queue.Queue.publish
    patch.setattr(queue.Queue, "publish", lambda self, message: original(self, message) or True)


def prefer_the_first_consumer(patch):
    def insert(consumers, consumer):
        consumers.insert(0, consumer)

    patch.setattr(queue, "_insert_by_priority", insert)


def drop_expired_without_dead_letter(patch):
    original = queue.Queue._discard

    def discard(self, queued, reason):
        if reason == "expired":
            self.vhost.count_memory(-queued.message.size)
        else:
            original(self, queued, reason)

    patch.setattr(queue.Queue, "_discard", discard)


def match_a_star_with_nothing(patch):
    original = exchange.topic_matches

    def matches(pattern, words):
        return original(pattern, words) or original(pattern.removesuffix(".*"), words)

    patch.setattr(exchange, "topic_matches", matches)


def keep_deliveries_of_a_closed_channel(patch):
    original = channel.Channel.release

    def release(self):
        kept = self._deliveries._remove(0, True)
        original(self)
        self._deliveries._unacked = dict(enumerate(kept))

    patch.setattr(channel.Channel, "release", release)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "inject",
    [requeue_to_the_end, ack_one_message_only, prefetch_one_too_many, count_deaths_from_zero,
     swap_any_and_all, drop_the_newest, clear_the_redelivered_flag, ignore_priorities,
     return_nothing, confirm_rejected_messages, prefer_the_first_consumer,
     drop_expired_without_dead_letter, match_a_star_with_nothing,
     keep_deliveries_of_a_closed_channel],
)  # fmt: skip
def test_random_programs_find_an_injected_fault(inject, recorded, embedded, monkeypatch):
    """Each of these faults of the embedded broker changes what at least one program observes.

    The comparison is with the same broker without the fault. That RabbitMQ shows the same as the
    healthy broker is the claim of the tests above.
    """
    inject(monkeypatch)

    assert any(embedded.run(program) != healthy for program, healthy in recorded)
