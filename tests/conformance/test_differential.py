"""Random programs give the same on the embedded broker and on RabbitMQ 4.3, step by step.

What a step shows is told in `peer`, what programs are made of in `programs`. A difference is made
smaller before it is shown, by leaving out operations, for a bounded time.
"""

from __future__ import annotations

import dataclasses
import os
import time

import programs
import pytest
from client import Target
from peer import Peer
from rig import summary

from mousetrap.embedded_broker import EmbeddedServer, channel, dead_letter, exchange, queue

QUICK, LONG = 200, 2_500  # programs
PLANTED = 1_000  # of them, in which planted faults are looked for; 200 find about 12 of 14
TIMES = 20  # that a difference must be there, one after the other: RabbitMQ differs from itself
SMALLER = 60.0  # seconds that may go into making a difference smaller
USER, PASSWORD = "DEV_USER", "CHANGE_ME"


@pytest.fixture(scope="module")
def box():
    """The embedded broker."""
    with EmbeddedServer({USER: PASSWORD}) as server:
        peer = Peer(Target(f"amqp://{USER}:{PASSWORD}@127.0.0.1:{server.port}", server))
        yield peer
        peer.hang_up()


@pytest.fixture(scope="module")
def rabbit(request):
    """RabbitMQ 4.3: the session's, or the first that MOUSETRAP_CONFORMANCE names."""
    named = [each for each in os.environ.get("MOUSETRAP_CONFORMANCE", "").split() if "//" in each]
    if not named:
        broker = request.getfixturevalue("broker")
        if broker.kind == "embedded":
            pytest.skip("the session's broker is the embedded one")
        named = [broker.settings.to_environment()["RABBITMQ_URL"]]
    targets = [Target(each) for each in named]
    found = next((each for each in targets if each.version == (4, 3)), None)
    if found is None:
        pytest.skip("the embedded broker behaves as RabbitMQ 4.3, and this one is another")
    peer = Peer(found)
    yield peer
    peer.hang_up()


def draw(many, seed="quick"):
    """Return so many programs; the same ones always for a *seed*."""
    return [programs.write(f"{seed}/{number}") for number in range(many)]


@pytest.fixture(scope="module")
def many(box):
    """Programs, and what the embedded broker shows of each."""
    return [(program, box.run(program)) for program in draw(PLANTED)]


def difference(box, rabbit, program):
    """Return the first step that is not the same: its number and what was seen; or None."""
    ours = box.run(program)
    theirs = rabbit.run(program, ours)
    for step, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        if one != other:
            if ends_a_channel(one) and unordered(one) == unordered(other):
                return None
            return step, one, other
    return None


def ends_a_channel(seen):
    """Whether the broker closed something in this step.

    Then each queue hears of it by itself. Where one feeds the other, what comes of it first is a
    matter of luck, and so is all that follows: such a program is compared no further.
    """
    return isinstance(seen["answer"], tuple) and seen["answer"][0].endswith(".Close")


def unordered(seen):
    """What was seen in a step, but for the order in which it was delivered."""
    return {
        part: sorted(map(repr, _flat(value))) if part == "events" else value
        for part, value in seen.items()
    }


def _flat(value):
    """Each delivery, and each of the other things, on its own."""
    for actor, events in enumerate(value):
        for word, found in events.items():
            by_tag = found[0] if word == "delivered" else {}
            yield from ((actor, tag, each) for tag, some in by_tag.items() for each in some)
            if not by_tag:
                yield actor, word, found


def differs(box, rabbit, program):
    """Whether there is a difference each time: RabbitMQ's own timing makes some that are not."""
    return all(difference(box, rabbit, program) for _ in range(TIMES))


def smaller(box, rabbit, program):
    """Leave out of *program* what its difference does not need."""
    deadline = time.monotonic() + SMALLER
    rabbit.delay = 1.5  # seconds: enough, once it is known that there is something
    size = len(program) // 2
    while size:
        at = 0
        while at < len(program) and time.monotonic() < deadline:
            rest = program[:at] + program[at + size :]
            if difference(box, rabbit, rest):
                program = rest
            else:
                at += size
        size //= 2
    return program


def show(box, rabbit, program):
    """Fail with a program that shows a difference, made smaller, and with the difference."""
    first = difference(box, rabbit, program)
    program = smaller(box, rabbit, program)
    step, ours, theirs = difference(box, rabbit, program) or first or (0, {}, {})
    lines = [f"    {each}" for each in program]
    for part in ours:
        if ours[part] != theirs[part]:
            lines += [f"step {step}, {part}:", f"    embedded {ours[part]}"]
            lines += [f"    RabbitMQ {theirs[part]}"]
    if first is None:
        lines.append("that was different before, and is not now")
    pytest.fail("\n".join(["a difference:", *lines]), pytrace=False)


@pytest.mark.timeout(300)
def test_random_programs_show_no_difference(box, rabbit):
    """Answers, deliveries, returns, confirms, errors, counts and the order of what is left."""
    for program in draw(QUICK):
        if differs(box, rabbit, program):
            show(box, rabbit, program)


@pytest.mark.long
@pytest.mark.timeout(3_000)
def test_thousands_of_random_programs_show_no_difference(box, rabbit):
    """Others in each session; its seed, which is printed, repeats them."""
    for program in draw(LONG, summary.seed()):
        if differs(box, rabbit, program):
            show(box, rabbit, program)


# ---- would it notice? ----------------------------------------------------------------------------


def put_at_the_end(patch):
    original = queue.Queue._put

    def put(self, entry):
        entry.number = next(queue.NUMBERS)
        original(self, entry)

    patch.setattr(queue.Queue, "_put", put)


def ack_one_only(patch):
    original = channel.Channel.basic_ack

    def ack(self, delivery_tag, multiple):
        original(self, delivery_tag, multiple and delivery_tag == 0)

    patch.setattr(channel.Channel, "basic_ack", ack)


def give_one_too_many(patch):
    original = channel.Channel.basic_qos

    def qos(self, prefetch_size, prefetch_count, global_qos):
        original(self, prefetch_size, prefetch_count + (prefetch_count > 0), global_qos)

    patch.setattr(channel.Channel, "basic_qos", qos)


def count_deaths_from_zero(patch):
    original = dead_letter.letter

    def letter(of, entry, reason, now):
        past = entry.message.past
        if past is not None:
            deaths = tuple(each | {"count": 0} for each in past.deaths)
            entry.message.past = dataclasses.replace(past, deaths=deaths)
        return original(of, entry, reason, now)

    patch.setattr(dead_letter, "letter", letter)


def take_any_for_all(patch):
    original = exchange.headers_match

    def match(wanted, headers):
        mode = wanted.get("x-match", "all")
        other = {"any": "all", "all": "any"}.get(mode, mode)
        return original(wanted | {"x-match": other}, headers)

    patch.setattr(exchange, "headers_match", match)


def drop_the_newest(patch):
    def drop(self):
        while self._ready and self._is_over(0, 0):
            level = [each for each in self._levels.values() if each][-1]
            self._ready -= 1
            self._discard(level.pop(), "maxlen")

    patch.setattr(queue.Queue, "_drop_what_is_over", drop)


def say_it_is_new(patch):
    original = queue.Queue.returned

    def returned(self, entries, *, has_failed):
        original(self, entries, has_failed=has_failed)
        for each in entries:
            each.is_redelivered = False

    patch.setattr(queue.Queue, "returned", returned)


def forget_priorities(patch):
    original = queue.Queue._put

    def put(self, entry):
        entry.priority = 0
        original(self, entry)

    patch.setattr(queue.Queue, "_put", put)


def return_nothing(patch):
    original = channel.Channel._publish
    patch.setattr(
        channel.Channel, "_publish", lambda self, message, _: original(self, message, False)
    )


def confirm_what_was_refused(patch):
    original = queue.Queue.publish
    patch.setattr(queue.Queue, "publish", lambda self, message: original(self, message) or True)


def favour_the_first_consumer(patch):
    patch.setattr(queue, "_insert", lambda takers, consumer: takers.insert(0, consumer))


def let_expired_ones_vanish(patch):
    original = queue.Queue._discard

    def discard(self, entry, reason):
        if reason == "expired":
            self._count(entry, -1)
        else:
            original(self, entry, reason)

    patch.setattr(queue.Queue, "_discard", discard)


def match_a_star_with_nothing(patch):
    original = exchange.topic_matches

    def matches(pattern, words):
        return original(pattern, words) or original(pattern.removesuffix(".*"), words)

    patch.setattr(exchange, "topic_matches", matches)


def keep_what_a_closed_channel_held(patch):
    def release(self):
        taken = self._taken(0, True)
        original(self)
        self._unacked = dict(enumerate(taken))

    original = channel.Channel.release
    patch.setattr(channel.Channel, "release", release)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "plant",
    [put_at_the_end, ack_one_only, give_one_too_many, count_deaths_from_zero, take_any_for_all,
     drop_the_newest, say_it_is_new, forget_priorities, return_nothing, confirm_what_was_refused,
     favour_the_first_consumer, let_expired_ones_vanish, match_a_star_with_nothing,
     keep_what_a_closed_channel_held],
)  # fmt: skip
def test_a_planted_fault_is_found(plant, many, box, monkeypatch):
    """Random programs find each of these faults of the embedded broker.

    Compared with what it showed without them, which is what RabbitMQ shows: see above.
    """
    plant(monkeypatch)

    assert any(box.run(program) != healthy for program, healthy in many)
