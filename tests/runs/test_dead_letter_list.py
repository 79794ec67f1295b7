"""The bench for dead letters: seen without harm, mended, sent back, made into tests."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pika
import pytest
from support.waiting import wait_for

import mousetrap
from mousetrap import Message, Reject, dead, declare, depth, drain, open_channel, send, stage
from mousetrap.amqp.properties import NEAR_DELIVERY_LIMIT
from mousetrap.amqp.publisher import Publisher
from mousetrap.errors import MousetrapError, PublishError, QueueMissing, SettingsError
from mousetrap.flows.recording import test_module as module_of
from mousetrap.job_queue import delete, peek
from mousetrap.model.topology import Queue
from mousetrap.run_fetch_worker import fetch

QUICK = (0.05,)  # seconds


@stage(reads="words", writes="shares", retry_delays=QUICK)
def share(word: str) -> float:
    return word.count("a") / len(word)


@stage(reads="shares", writes="shown")
def show(part: float) -> str:
    if part > 0.5:
        raise Reject("too much of it")
    return f"{part:.0%}"


@pytest.fixture
def letters(settings):
    """Two died: the empty word at its second attempt, a number at its first."""
    declare(share.queue, "shares", settings=settings)
    send(share, ["trap", "", 7], settings=settings)
    with share.start(settings) as worker:
        worker.wait_until(done=1, dead=2)
    return settings


def bench_of(settings):
    """The letters by what killed them: the number first."""
    bench = dead(share, settings=settings)
    return bench, {each.reason.split(":")[0]: each.id for each in bench}


def test_dead_shows_reasons_attempts_ages_and_sizes_and_no_body(letters):
    """What a person looks at first; the letters stay where they are."""
    bench, ids = bench_of(letters)

    row = next(row for row in bench.table() if row["message"] == ids["ZeroDivisionError"][:8])
    assert (row["reason"], row["attempts"]) == ("ZeroDivisionError: division by zero", 2)
    assert row["died"].endswith(" s ago")
    assert row["size"] == "2 B"
    assert repr(bench).startswith("2 dead letters of words\n")
    assert "redelivered" in repr(bench)
    assert '""' not in repr(bench)
    assert depth("words.dead", letters).messages == 2


def test_dead_says_where_in_the_function_and_by_which_body(letters):
    """Only when asked: the traceback line by line, the body as data, decoded to a type."""
    bench, ids = bench_of(letters)
    number, empty = ids["UndecodableMessage"], ids["ZeroDivisionError"]

    assert "in share" in repr(bench.traceback(empty[:6]))
    assert repr(bench.traceback(empty)).count("\n") > 2
    assert (bench.body(empty), bench.body(number), bench.body(empty, str)) == ("", 7, "")
    assert bench.body(number, str) == b"7"  # it is none
    assert {row["body"] for row in bench.bodies()} == {'""', "7"}
    assert "''" in repr(bench.bodies(str))
    assert "Expected `str`, got `int`" in repr(bench.bodies(str))


def test_dead_says_how_many_more_there_are(letters):
    """The bench holds so many; the queue may hold more."""
    assert repr(dead("words", 1, letters)).startswith("1 dead letters of words, the first of 2")


def test_dead_of_a_queue_that_nobody_reads_says_so(settings):
    """Not ours, or not yet: the error names it and the way to look at others'."""
    with pytest.raises(QueueMissing, match=r"no queue 'nowhere.dead'.*peek"):
        dead("nowhere", settings=settings)


def test_dead_names_letters_by_the_beginning_of_their_ids(settings):
    """One that fits; none or several are errors, as is nothing at all."""
    declare(share.queue, settings=settings)
    with Publisher(settings) as publisher:
        letters = [Message(1, id=id) for id in ("a1", "a2", "b1")]
        publisher.publish_until_confirmed(letters, "words.dead")
    bench = dead(share, settings=settings)

    assert bench.dead_letter("b").id == "b1"
    assert [each.id for each in bench[:2]] == ["a1", "a2"]
    assert isinstance(bench[:2], mousetrap.DeadLetterList)
    for id, says in (("a", "2 dead letters begin with"), ("c", "no dead letter"), ("", "empty")):
        with pytest.raises(SettingsError, match=says):
            bench.dead_letter(id)
    assert bench.replay("a1").sent == ["a1"]


def test_edit_mends_copies_and_sends_nothing(letters):
    """Data in, data out; ids stay, the first bench stays, a header tells."""
    bench, ids = bench_of(letters)

    mended = bench.edit(lambda word: word or "?", ids["ZeroDivisionError"])

    assert [each.id for each in mended] == [each.id for each in bench]
    assert mended.body(ids["ZeroDivisionError"]) == "?"
    assert bench.body(ids["ZeroDivisionError"]) == ""
    assert [each.is_edited for each in mended if each.id == ids["ZeroDivisionError"]] == [True]
    assert "edited" in mended.table().columns
    assert depth("words", letters).messages == 0


def test_edit_decodes_as_a_stage_does(letters):
    """To the annotated type; annotated Message, the letter itself, whose body may be anything."""
    bench, ids = bench_of(letters)

    def raw(letter: Message) -> bytes:
        return b'"' + letter.body + b'"'

    number = ids["UndecodableMessage"]
    assert bench.edit(raw, number).body(number) == "7"
    assert bench.edit(str, number).body(number) == "7"  # a built-in tells no annotations


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda _: 1 / 0, "failed with message .*ZeroDivisionError.*nothing was edited"),
        (lambda _: None, "returned None"),
        (lambda _: object(), "failed with message .*TypeError"),
    ],
    ids=["raises", "returns nothing", "returns what is no JSON"],
)
def test_edit_says_which_letter_it_could_not_mend(letters, function, says):
    """And edits none of them."""
    bench, _ = bench_of(letters)

    with pytest.raises(MousetrapError, match=says):
        bench.edit(function)


def test_replay_sends_letters_back_marked_and_mended(letters):
    """To the queue where they died, as first attempts, with their ids; the others stay."""
    bench, ids = bench_of(letters)

    replayed = bench.edit(lambda _: "aa", ids["ZeroDivisionError"]).replay(ids["ZeroDivisionError"])

    [back] = drain("words", settings=letters)
    assert (back.id, back.data) == (ids["ZeroDivisionError"], "aa")
    assert (back.attempt, back.replayed, back.is_edited, back.reason) == (1, 1, True, None)
    assert repr(replayed) == "1 sent back"
    assert [each.id for each in peek("words.dead", settings=letters)] == [ids["UndecodableMessage"]]


def test_replay_keeps_to_its_limit_and_says_what_is_gone(letters):
    """At most so many; a letter that somebody else took is named."""
    bench, _ = bench_of(letters)

    first = bench.replay(limit=1)
    rest = bench.replay()

    assert (len(first), first.kept) == (1, {})
    assert len(rest) == 1
    assert rest.kept == {first.sent[0]: "no longer in the dead queue"}
    assert "1 stay, no longer in the dead queue" in repr(rest)


def test_replay_leaves_alone_what_died_too_often(settings):
    """The cap: sent back and died so many times, it stays until somebody insists."""

    @stage(reads="words", retry_delays=())
    def never(word: str) -> None:
        raise ValueError(word)

    declare(never.queue, settings=settings)
    send(never, "x", settings=settings)
    with never.start(settings) as worker:
        for times in range(1, 4):
            worker.wait_until(dead=times)
            kept = dead(never, settings=settings).replay(cap=2).kept

    assert list(kept.values()) == ["replayed 2 times already (cap=2)"]
    assert len(dead(never, settings=settings).replay(cap=3)) == 1


def test_replay_keeps_the_letter_when_the_queue_is_gone(letters):
    """The copy came back: its letter is still in the dead queue."""
    bench, _ = bench_of(letters)
    delete("words", settings=letters)

    with pytest.raises(PublishError):
        bench.replay()

    assert depth("words.dead", letters).messages == 2


def test_dead_of_a_run_needs_no_queue(settings):
    """The history by tap: reasons and tracebacks from the run's own ledger, after its end too."""
    with mousetrap.run([share, show], settings, keep_bodies=100) as run:
        run.send_many(["trap", "", "aaa"])
        run.settle(timeout=20)
    bench = dead(run)

    rows = {row["reason"]: (row["queue"], row["attempts"], row["size"]) for row in bench.table()}
    assert rows == {
        "ZeroDivisionError: division by zero": ("words", 2, "2 B"),
        "Reject: too much of it": ("shares", 1, "3 B"),
    }
    assert "in share" in bench.traceback(bench[0].id)
    assert {row["body"] for row in bench.bodies()} == {'""', "1.0"}
    with pytest.raises(MousetrapError, match="this run has ended"):
        bench.replay()


def test_dead_of_a_run_says_when_bodies_were_not_kept(settings):
    """Unless asked for they are not; the bench says how to ask."""
    with mousetrap.run(share, settings) as run:
        run.send("")
        run.settle(timeout=20)
    bench = dead(run)

    [row] = bench.table()
    assert row["size"] is None
    assert bench.bodies()[0]["body"] == "not kept"
    for use in (lambda: bench.body(bench[0].id), lambda: bench.edit(str)):
        with pytest.raises(SettingsError, match="keep_bodies="):
            use()


def test_replay_in_a_run_is_counted_by_its_ledger(settings):
    """Sent back, it is open again; done the second time, nobody takes it for a duplicate."""
    is_mended = False

    @stage(reads="words", retry_delays=())
    def handle(word: str) -> None:
        if not is_mended:
            raise ValueError(word)

    with mousetrap.run(handle, settings) as run:
        run.send_many(["a", "b"])
        before = run.settle(timeout=20)
        is_mended = True
        replayed = dead(run).replay(limit=1)
        after = run.settle(timeout=20)

    assert (before.done, before.dead) == (0, 2)
    assert (len(replayed), after.done, after.dead) == (1, 1, 1)
    assert (after.lost, after.duplicates) == (0, 0)


def test_letters_become_tests_that_fail_until_the_function_is_mended(letters, tmp_path):
    """Red with the function as it was, green once it can deal with both."""
    bench, _ = bench_of(letters)
    flow = tmp_path / "my_flow.py"
    broken = """
        from mousetrap import stage

        @stage(reads="words", writes="shares")
        def share(word: str) -> float:
            return word.count("a") / len(word)
    """
    path = bench.to_test(tmp_path / "test_letters.py", stage="my_flow:share")

    flow.write_text(textwrap.dedent(broken))
    red = run_pytest(path)
    flow.write_text(textwrap.dedent(broken).replace("word: str", "word: str | int").replace(
        'word.count("a") / len(word)', "0.0"))  # fmt: skip
    green = run_pytest(path)

    assert "2 failed" in red, red
    assert "ZeroDivisionError" in red
    assert "2 passed" in green, green


def run_pytest(path):
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:mousetrap"]
    done = subprocess.run(
        [sys.executable, "-B", "-m", "pytest", *options, path],
        cwd=path.parent, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_to_test_knows_the_stage_and_asks_before_it_overwrites(letters, tmp_path):
    """A stage that a module holds needs no words; a file that exists stays."""
    declare(fetch.queue, settings=letters)
    with Publisher(letters) as publisher:
        publisher.publish(Message(body=b"[]"), fetch.queue.dead).wait()
    bench = dead(fetch, settings=letters)
    path = bench.to_test(tmp_path / "test_letters.py")

    assert "from mousetrap.run_fetch_worker import fetch\n" in path.read_text()
    with pytest.raises(SettingsError, match=r"exists: .*overwrite=True"):
        bench.to_test(path)
    assert bench.to_test(path, overwrite=True) == path


def test_to_test_refuses_a_stage_that_no_test_can_find(letters, tmp_path):
    """One that was made in a notebook, none at all, or what is no address."""

    @stage(reads="words")
    def local(word: str) -> None: ...

    bench = dead("words", settings=letters)
    for where, says in ((local, "exists only in this notebook"), (None, "not clear which stage"),
                        ("os; import x", "module:name")):  # fmt: skip
        with pytest.raises(SettingsError, match=says):
            bench.to_test(tmp_path / "test_letters.py", stage=where)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text", ['"""\nimport os  # ', "\\", "'\"\u2028\x00\ud800\r\n", "{0}%s", "é" * 300]
)
def test_a_test_module_is_python_whatever_is_in_the_letters(text):
    """Bodies, ids and reasons are data in it: it compiles, and holds the same bytes."""
    body = text.encode("utf-8", "surrogatepass") * 20
    letter = Message(body=body, id=text[:20].encode("utf-8", "replace").decode(), job="j" + text,
                     headers={"mousetrap-reason": text})  # fmt: skip
    source = module_of([letter], "mousetrap.run_fetch_worker", "fetch")
    scope = {}

    exec(compile(source.encode(), "test_letters.py", "exec"), scope)

    [back] = scope["DEAD_LETTERS"]
    assert (back.body, back.id, back.job) == (letter.body, letter.id, letter.job)
    assert "os" not in scope


def test_looking_does_not_use_up_a_quorum_queue(settings):
    """Its delivery limit is 20, and a letter survives thirty looks, wherever they count."""
    settings = settings.replace(queue_type="quorum")
    queue = Queue("work", ())
    declare(queue, settings=settings)
    with Publisher(settings) as publisher:
        publisher.publish_until_confirmed([Message(n, id=f"m{n}") for n in range(3)], queue.dead)

    for _ in range(30):
        seen = dead(queue, settings=settings)

    assert [each.id for each in seen] == ["m0", "m1", "m2"]
    assert len(seen.replay(limit=1)) == 1


def wear(queue, settings, **properties):
    """Send one letter and refuse it until it is worn; return its properties."""
    name = settings.topology.wire_name(queue.dead)
    with open_channel(settings) as channel:
        channel.basic_publish("", name, b"0", pika.BasicProperties(delivery_mode=2, **properties))
        for _ in range(NEAR_DELIVERY_LIMIT):
            wait_for(lambda: depth(queue.dead, settings).messages == 1)
            method, sent, _ = channel.basic_get(name)
            channel.basic_reject(method.delivery_tag)
    wait_for(lambda: depth(queue.dead, settings).messages == 1)
    return sent


@pytest.mark.local
def test_a_worn_letter_can_be_looked_at_when_the_broker_takes_nothing(node):
    """A copy cannot be published then: there is a deadline, and the letter stays."""
    settings = node.settings.replace(queue_type="quorum")
    queue = Queue("work", ())
    declare(queue, settings=settings)
    wear(queue, settings, message_id="m0")
    node.rabbitmqctl("set_vm_memory_high_watermark", "absolute", "1")

    assert [each.id for each in dead(queue, settings=settings)] == ["m0"]
    wait_for(lambda: depth(queue.dead, settings).messages == 1)


def test_a_worn_letter_is_published_anew_as_it_was(settings):
    """With all that it had but the broker's count; perhaps not in its place."""
    settings = settings.replace(queue_type="quorum")
    queue = Queue("work", ())
    declare(queue, settings=settings)
    name = settings.topology.wire_name(queue.dead)
    headers = {
        "mousetrap-reason": "why", "mine": 1, "mousetrap-attempt": 3, "mousetrap-job": "m0"
    }  # fmt: skip
    others = {"correlation_id": "c", "priority": 3, "content_type": "text/plain", "timestamp": 9}
    sent = wear(queue, settings, message_id="m0", headers=headers, **others)
    with open_channel(settings) as channel, Publisher(settings) as publisher:
        publisher.publish_until_confirmed([Message(1, id="m1")], queue.dead)

        assert [each.id for each in dead(queue, settings=settings)] == ["m0", "m1"]
        wait_for(lambda: depth(queue.dead, settings).messages == 2)

        got = [channel.basic_get(name, auto_ack=True) for _ in range(2)]
    method, again, body = min(got, key=lambda each: each[1].message_id)
    assert (body, method.redelivered) == (b"0", False)
    assert again.headers.pop("x-delivery-count", 0) == 0
    assert again.headers == headers
    assert vars(again) == vars(sent) | {"headers": headers}
