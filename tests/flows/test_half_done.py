"""Functions that take or give many messages, stopped in between: the exception says what was done.

What was handed over arrives once, is counted, and is in an attribute of the exception.
"""

from __future__ import annotations

import signal
import threading

import pytest

from mousetrap import Message, Publisher, Reject, Sink, declare, depth, drain, send, stage
from mousetrap.display.formats import counted
from mousetrap.errors import ConnectionLost, SettingsError, Unroutable
from mousetrap.flows import dead_letters
from mousetrap.flows.recording import RecordedMessage, Recording
from mousetrap.job_queue import delete_unused, open_channel
from mousetrap.model.message import current_message
from mousetrap.runs.find_dead_letters import dead
from mousetrap.runs.run import Run
from mousetrap.runs.run_lock import RunLock, sweep
from mousetrap.worker.worker import Worker

SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGALRM") if hasattr(signal, name)
]
NUMBER = 300  # values before the end: more than one batch of `publish_many`


class Stopped(BaseException):
    """No `Exception`, like KeyboardInterrupt."""


def cut(number=NUMBER, make=lambda n: n, error=Stopped):
    for n in range(number):
        yield make(n)
    raise error


@stage(reads="work", retry_delays=())
def work(n: int) -> None: ...


def publish_many(settings):
    with Publisher(settings) as publisher:
        publisher.publish_many(cut(make=Message), "work")


def publish_until_confirmed(settings):
    with Publisher(settings) as publisher:
        publisher.publish_until_confirmed(cut(make=Message), "work")


SENDING = {
    "publish_many": publish_many,
    "publish_until_confirmed": publish_until_confirmed,
    "send": lambda settings: send("work", cut(), settings=settings),
    "send, twice": lambda settings: send("work", cut(), count=2, settings=settings),
    "send of a bad value": lambda settings: send(
        "work", [*range(NUMBER), object()], settings=settings
    ),
}


@pytest.mark.parametrize("action", SENDING.values(), ids=SENDING)
def test_receipts_are_those_of_the_messages_that_arrive(settings, action):
    """In this order, and no other message arrives; twice the same generator is read beforehand."""
    declare("work", settings=settings)

    with pytest.raises((Stopped, TypeError)) as stopped:
        action(settings)

    found = [each.id for each in drain("work", idle=0.3, settings=settings)]
    assert found == [each.message.id for each in stopped.value.receipts]
    assert len(found) == (0 if action is SENDING["send, twice"] else NUMBER)


def test_send_in_a_handler_keeps_nothing_of_a_generator_that_raises(settings):
    """The handler may go on: the other messages that it sends are outputs, these are not."""
    receipts = []

    def handler(n: int) -> None:
        send("out", -1)
        with pytest.raises(Stopped) as stopped:
            send("out", cut(3))
        receipts.append(stopped.value.receipts)

    declare("out", "work", settings=settings)
    send("work", 0, settings=settings)
    with Worker("work", handler, settings) as worker:
        worker.wait_until(done=1)

    assert receipts == [[]]
    assert [each.data for each in drain("out", settings=settings)] == [-1]


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_while_a_batch_is_submitted(settings, number):
    """Whichever signal has a handler that raises: the batch is sent once, and counted."""
    declare("work", settings=settings)
    counted = []

    def stop(*_: object) -> None:
        raise Stopped

    def on_submitted(receipts) -> None:
        signal.raise_signal(number)
        counted.extend(receipts)

    before = signal.signal(number, stop)
    try:
        with Publisher(settings) as publisher, pytest.raises(Stopped) as stopped:
            publisher.publish_many(map(Message, range(600)), "work", on_submitted=on_submitted)
    finally:
        signal.signal(number, before)

    found = [each.id for each in drain("work", idle=0.3, settings=settings)]
    assert found == [each.message.id for each in stopped.value.receipts]
    assert counted == stopped.value.receipts != []


def test_batch_is_not_sent_again_when_counting_it_fails(settings):
    """A progress display, for example, cannot be written any more."""
    declare("work", settings=settings)

    def on_submitted(_) -> None:
        raise BrokenPipeError

    with Publisher(settings) as publisher, pytest.raises(BrokenPipeError) as broken:
        publisher.publish_many(map(Message, range(10)), "work", on_submitted=on_submitted)

    assert len(broken.value.receipts) == 10
    assert len(drain("work", idle=0.3, settings=settings)) == 10


def test_publish_until_confirmed_has_the_receipts_of_what_was_refused(settings):
    """The error is about one message; the others may have arrived."""
    with Publisher(settings) as publisher, pytest.raises(Unroutable) as refused:
        publisher.publish_until_confirmed(map(Message, range(3)), "nowhere")

    assert [each.state for each in refused.value.receipts] == ["returned"] * 3


def fail_all(n: int) -> None:
    raise Reject("always")


@pytest.fixture
def five_dead(settings):
    declare(work.queue, settings=settings)
    send("work", range(5), settings=settings)
    with Worker(work.queue, fail_all, settings) as worker:
        worker.wait_until(dead=5)
    return settings


def replay_list(settings, number):
    found = dead(work, settings=settings)
    found.edit(lambda n: n)
    count = iter(range(5))
    listed = type(found).replay

    def stop_at(_: object) -> None:
        if next(count) == number - 1:
            raise Stopped

    class Ledger:
        replayed = staticmethod(stop_at)

    class OpenRun:
        state, ledger = "open", Ledger

    found._run = OpenRun
    listed(found)


def replay_queue(settings, number):
    count = iter(range(5))

    def stop_at(_: object) -> None:
        if next(count) == number - 1:
            raise Stopped

    dead_letters.replay("work", settings=settings, on_replayed=stop_at)


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("replay", [replay_list, replay_queue])
def test_replayed_ids_are_those_of_the_messages_that_went_back(five_dead, replay, number):
    """The others are dead letters still; the note says what the attribute is."""
    with pytest.raises(Stopped) as stopped:
        replay(five_dead, number)

    back = [each.id for each in drain("work", settings=five_dead)]
    assert stopped.value.replayed == back
    assert len(back) == number
    assert depth("work.dead", five_dead).messages == 5 - number
    assert f"sent back before this: {counted(number, 'dead letter')}, whose" in "".join(
        stopped.value.__notes__
    )


def test_sweep_names_the_queues_that_it_deleted_before_a_problem(settings, tmp_path, monkeypatch):
    """A consumer of one queue keeps it, and the run, for the next sweep."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("mousetrap.runs.run_lock.WORKER_EXIT_TIMEOUT", 0.1)
    names = [settings.topology.wire_name(each) for each in ("one", "two", "three")]
    declare("one", "two", "three", settings=settings)
    RunLock(settings.replace(namespace="run-1"), names).release()
    with open_channel(settings) as channel:
        channel.basic_consume(names[1], lambda *_: None)
        with pytest.raises(TimeoutError) as kept:
            delete_unused([*names[1:], "nowhere"], settings, timeout=0.1)
        [stale] = sweep(settings)

    assert kept.value.deleted == []
    assert stale.queues == (names[0],)
    assert "still has 1 consumer " in stale.problem


def test_results_that_were_taken_are_returned_when_the_broker_falls_silent(settings, monkeypatch):
    """Some are missing, and nobody says where they are: the note has the reason."""

    @stage(reads="work", writes="out")
    def double(n: int) -> int:
        return 2 * n

    def silent(*_: object) -> None:
        raise ConnectionLost("no answer")

    with Run(double, settings) as run:
        run.send_many(range(10))
        run.settle(20)
        with open_channel(run.settings) as channel:
            channel.basic_get(run.settings.topology.wire_name("out"), auto_ack=True)
        monkeypatch.setattr(run._queues, "depths", silent)
        found = run.results()

    assert len(found) == 9
    assert found.note == "1 of 10 results were not taken: no answer"


def test_recording_that_lacks_lines_is_refused(tmp_path):
    """A file that was cut at the end of a line looks complete otherwise."""
    path = tmp_path / "cut.jsonl"
    Recording(RecordedMessage(f"{n}", "work", f"{n}") for n in range(5)).save(path)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:4]))

    with pytest.raises(SettingsError, match="has 3 messages, and its first line says 5"):
        Recording.load(path)


def test_sink_stores_nothing_of_a_value_that_ends_early(tmp_path):
    """An iterator is no JSON, nor is a list with one; the id is not stored either."""
    sink = Sink(tmp_path / "results.db")
    token = current_message.set(Message(1, id="a"))
    try:
        for value in (cut(3), [1, cut(3)], {"n": cut(3)}):
            with pytest.raises(TypeError):
                sink.store(value)
        with pytest.raises(Stopped), sink.once() as transaction:  # noqa: PT012 -- it is the subject
            transaction.execute(f'UPDATE "{sink.name}" SET data = 1')
            list(cut(2))
    finally:
        current_message.reset(token)

    assert len(sink) == 0


def test_handler_that_raises_after_some_outputs_sends_none(settings):
    """All of them, or none."""
    handled = threading.Event()

    def handler(n: int):
        handled.set()
        yield from cut(3, error=Reject("no more"))

    declare("out", "work", settings=settings)
    send("work", 0, settings=settings)
    with Worker(work.queue, handler, settings, writes="out") as worker:
        worker.wait_until(dead=1)

    assert handled.is_set()
    assert drain("out", settings=settings) == []
