"""Dead letters are listed without harm, edited, replayed, and turned into tests."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

import mousetrap
from mousetrap import Message, Reject, dead, declare, depth, drain, send, stage
from mousetrap.amqp.publisher import Publisher
from mousetrap.errors import MousetrapError, PublishError, QueueMissing, SettingsError
from mousetrap.flows.recording import test_module as module_of
from mousetrap.job_queue import delete, peek
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
def two_dead(settings):
    """Let two messages die: the empty word at its second attempt, a number at its first."""
    declare(share.queue, "shares", settings=settings)
    send(share, ["trap", "", 7], settings=settings)
    with share.start(settings) as worker:
        worker.wait_until(done=1, dead=2)
    return settings


def list_of(settings):
    """Return the dead letters of `share`, and their ids by the type of the exception."""
    found = dead(share, settings=settings)
    return found, {each.reason.split(":")[0]: each.id for each in found}


def test_dead_shows_reasons_attempts_ages_and_sizes_and_no_body(two_dead):
    """The table has no bodies, and the dead letters stay in their queue."""
    found, ids = list_of(two_dead)

    row = next(row for row in found.table() if row["message"] == ids["ZeroDivisionError"][:8])
    assert (row["reason"], row["attempts"]) == ("ZeroDivisionError: division by zero", 2)
    assert (row["size"], row["died"] >= 0) == (2, True)
    assert repr(found.table()).startswith("2 dead letters of words\n")
    assert " s ago   2 B  ZeroDivisionError: division by zero" in repr(found.table())
    assert "redelivered" in repr(found)
    assert '""' not in repr(found)
    assert depth("words.dead", two_dead).messages == 2


def test_dead_is_shown_by_kind_of_error(two_dead):
    """A line for each kind, and what to call next; each letter is in `table`."""
    found, ids = list_of(two_dead)
    text, html = repr(found), found._repr_html_()

    assert text.startswith("✕ 2 dead letters of words: 2 kinds of error\nletters  share ")
    assert "ZeroDivisionError: division by zero\n" in text
    example = ids["UndecodableMessage"][:8]
    names: dict = {"mousetrap": mousetrap, "settings": two_dead}
    first = text.splitlines()[-1].removeprefix("Next: ").split(" · ")[0]
    exec(first, names)
    assert first == "letters = mousetrap.dead('words', settings=settings)"
    assert len(names["letters"]) == 2
    assert f"letters.traceback('{example}') · letters.where('UndecodableMessage') · " in text
    assert "<b>ZeroDivisionError</b>: division by zero" in html
    assert html.count("<img ") == 2
    assert [row["letters"] for row in found.kinds()] == [1, 1]
    some = found.where("ZeroDivision")
    assert [each.id for each in some] == [ids["ZeroDivisionError"]]
    assert "1 dead letter with 'ZeroDivision' among the 2 of words" in repr(some)


def test_an_empty_list_of_dead_letters_is_one_sentence(settings):
    """Also where a filter leaves nothing."""
    declare("there", settings=settings)

    found = dead("there", settings=settings)

    assert repr(found) == "no dead letters of there"
    assert "no dead letters of there</div>" in found._repr_html_()
    assert repr(found.where("x")) == "no dead letters with 'x' among the 0 of there"


def test_dead_shows_the_traceback_and_the_body_on_request(two_dead):
    """The traceback has several lines; the body is data, or decoded to a type."""
    found, ids = list_of(two_dead)
    number, empty = ids["UndecodableMessage"], ids["ZeroDivisionError"]

    assert "in share" in repr(found.traceback(empty[:6]))
    assert repr(found.traceback(empty)).count("\n") > 2
    assert (found.body(empty), found.body(number), found.body(empty, str)) == ("", 7, "")
    assert found.body(number, str) == b"7"  # not a str, so the bytes
    assert {row["body"] for row in found.bodies()} == {'""', "7"}
    assert "''" in repr(found.bodies(str))
    assert "Expected `str`, got `int`" in repr(found.bodies(str))


def test_dead_says_how_many_more_there_are(two_dead):
    """The list has at most *n*; the title says how many the queue has."""
    assert repr(dead("words", 1, two_dead)).startswith("✕ 1 dead letter of words, the first of 2:")


def test_dead_raises_for_a_missing_queue(settings):
    """The error names it; a queue whose dead queue was never needed has no dead letters."""
    declare("there", settings=settings)

    assert dead("there", settings=settings) == []
    with pytest.raises(QueueMissing, match=r"no queue 'nowhere'"):
        dead("nowhere", settings=settings)


def test_dead_letters_are_found_by_the_beginning_of_their_ids(settings):
    """Exactly one must match; an empty id is an error, too."""
    declare(share.queue, settings=settings)
    with Publisher(settings) as publisher:
        messages = [Message(1, id=id) for id in ("a1", "a2", "b1")]
        publisher.publish_until_confirmed(messages, "words.dead")
    found = dead(share, settings=settings)

    assert found.dead_letter("b").id == "b1"
    assert [each.id for each in found[:2]] == ["a1", "a2"]
    assert isinstance(found[:2], mousetrap.DeadLetterList)
    for id, says in (("a", "the ids of 2 dead letters"), ("c", "no dead letter"), ("", "empty")):
        with pytest.raises(SettingsError, match=says):
            found.dead_letter(id)
    assert found.replay("a1").sent == ["a1"]


def test_edit_changes_copies_and_sends_nothing(two_dead):
    """The ids and the first list stay as they are; the copies are marked as edited."""
    found, ids = list_of(two_dead)

    edited = found.edit(lambda word: word or "?", ids["ZeroDivisionError"])

    assert [each.id for each in edited] == [each.id for each in found]
    assert edited.body(ids["ZeroDivisionError"]) == "?"
    assert found.body(ids["ZeroDivisionError"]) == ""
    assert [each.is_edited for each in edited if each.id == ids["ZeroDivisionError"]] == [True]
    assert "edited" in edited.table().columns
    assert depth("words", two_dead).messages == 0


def test_edit_decodes_as_a_stage_does(two_dead):
    """To the annotated type; a parameter annotated `Message` gets the whole message."""
    found, ids = list_of(two_dead)

    def raw(message: Message) -> bytes:
        return b'"' + message.body + b'"'

    number = ids["UndecodableMessage"]
    assert found.edit(raw, number).body(number) == "7"
    assert found.edit(str, number).body(number) == "7"  # a built-in has no annotations


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda _: 1 / 0, "failed with message .*ZeroDivisionError.*nothing was edited"),
        (lambda _: None, "returned None"),
        (lambda _: object(), "failed with message .*TypeError"),
    ],
    ids=["raises", "returns nothing", "returns what cannot be JSON"],
)
def test_edit_says_which_message_it_could_not_edit(two_dead, function, says):
    """No message is edited then."""
    found, _ = list_of(two_dead)

    with pytest.raises(MousetrapError, match=says):
        found.edit(function)


def test_replay_sends_edited_messages_back(two_dead):
    """They go to the queue where they died, as first attempts, with their ids; others stay."""
    found, ids = list_of(two_dead)

    replayed = found.edit(lambda _: "aa", ids["ZeroDivisionError"]).replay(ids["ZeroDivisionError"])

    [back] = drain("words", settings=two_dead)
    assert (back.id, back.data) == (ids["ZeroDivisionError"], "aa")
    assert (back.attempt, back.replayed, back.is_edited, back.reason) == (1, 1, True, None)
    assert repr(replayed) == "1 sent back"
    assert [each.id for each in peek("words.dead", settings=two_dead)] == [
        ids["UndecodableMessage"]
    ]


def test_replay_keeps_to_the_limit_and_names_missing_messages(two_dead):
    """A message that is no longer in the dead queue is in the result, with the reason."""
    found, _ = list_of(two_dead)

    first = found.replay(limit=1)
    rest = found.replay()

    assert (len(first), first.kept) == (1, {})
    assert len(rest) == 1
    assert rest.kept == {first.sent[0]: "no longer in the dead queue"}
    assert "1 stay, no longer in the dead queue" in repr(rest)


def test_replay_skips_messages_that_were_replayed_too_often(settings):
    """After *cap* replays a message stays, unless the caller gives a higher *cap*."""

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


def test_replay_keeps_the_dead_letters_when_the_queue_is_deleted(two_dead):
    """The broker returns the copy, and the dead letter stays in the dead queue."""
    found, _ = list_of(two_dead)
    delete("words", settings=two_dead)

    with pytest.raises(PublishError):
        found.replay()

    assert depth("words.dead", two_dead).messages == 2


def test_dead_of_a_run_needs_no_queue(settings):
    """Reasons and tracebacks come from the run's ledger, also after its end."""
    with mousetrap.run([share, show], settings, keep_bodies=100) as run:
        run.send_many(["trap", "", "aaa"])
        run.settle(timeout=20)
    found = dead(run)

    rows = {row["reason"]: (row["queue"], row["attempts"], row["size"]) for row in found.table()}
    assert rows == {
        "ZeroDivisionError: division by zero": ("words", 2, 2),
        "Reject: too much of it": ("shares", 1, 3),
    }
    assert "in share" in found.traceback(found[0].id)
    assert {row["body"] for row in found.bodies()} == {'""', "1.0"}
    with pytest.raises(MousetrapError, match="this run has ended"):
        found.replay()


def test_dead_of_a_run_says_when_bodies_were_not_kept(settings):
    """Bodies are not kept by default; the error says how to keep them."""
    with mousetrap.run(share, settings) as run:
        run.send("")
        run.settle(timeout=20)
    found = dead(run)

    [row] = found.table()
    assert "size" not in row
    assert found.bodies()[0]["body"] == "not kept"
    for use in (lambda: found.body(found[0].id), lambda: found.edit(str)):
        with pytest.raises(SettingsError, match="keep_bodies="):
            use()


def test_replay_in_a_run_is_counted_by_its_ledger(settings):
    """A replayed message is open again, and its second outcome is not a duplicate."""
    is_fixed = False

    @stage(reads="words", retry_delays=())
    def handle(word: str) -> None:
        if not is_fixed:
            raise ValueError(word)

    with mousetrap.run(handle, settings) as run:
        run.send_many(["a", "b"])
        before = run.settle(timeout=20)
        is_fixed = True
        replayed = dead(run).replay(limit=1)
        after = run.settle(timeout=20)

    assert (before.done, before.dead) == (0, 2)
    assert (len(replayed), after.done, after.dead) == (1, 1, 1)
    assert (after.lost, after.duplicates) == (0, 0)


def test_to_test_writes_tests_that_fail_until_the_function_is_fixed(two_dead, tmp_path):
    """They fail with the old function, and pass with one that handles both messages."""
    found, _ = list_of(two_dead)
    flow = tmp_path / "my_flow.py"
    broken = """
        from mousetrap import stage

        @stage(reads="words", writes="shares")
        def share(word: str) -> float:
            return word.count("a") / len(word)
    """
    path = found.to_test(tmp_path / "test_share.py", stage="my_flow:share")

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


def test_to_test_knows_the_stage_and_does_not_overwrite_by_default(two_dead, tmp_path):
    """The list was made from a stage in a module; an existing file stays."""
    declare(fetch.queue, settings=two_dead)
    with Publisher(two_dead) as publisher:
        publisher.publish(Message(body=b"[]"), fetch.queue.dead).wait()
    found = dead(fetch, settings=two_dead)
    path = found.to_test(tmp_path / "test_share.py")

    assert "from mousetrap.run_fetch_worker import fetch\n" in path.read_text()
    with pytest.raises(SettingsError, match=r"exists: .*overwrite=True"):
        found.to_test(path)
    assert found.to_test(path, overwrite=True) == path


def test_to_test_refuses_a_stage_that_no_test_can_import(two_dead, tmp_path):
    """A stage of a notebook, no stage at all, or text that is not a reference."""

    @stage(reads="words")
    def local(word: str) -> None: ...

    found = dead("words", settings=two_dead)
    for where, says in ((local, "exists only in this notebook"), (None, "not clear which stage"),
                        ("os; import x", "module:name")):  # fmt: skip
        with pytest.raises(SettingsError, match=says):
            found.to_test(tmp_path / "test_share.py", stage=where)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text", ['"""\nimport os  # ', "\\", "'\"\u2028\x00\ud800\r\n", "{0}%s", "é" * 300]
)
def test_test_module_is_valid_python_for_any_message(text):
    """Bodies, ids and reasons are data in it: it compiles, and has the same bytes."""
    body = text.encode("utf-8", "surrogatepass") * 20
    message = Message(body=body, id=text[:20].encode("utf-8", "replace").decode(), job="j" + text,
                      headers={"mousetrap-reason": text})  # fmt: skip
    source = module_of([message], "mousetrap.run_fetch_worker", "fetch")
    scope = {}

    exec(compile(source.encode(), "test_share.py", "exec"), scope)

    [back] = scope["DEAD_LETTERS"]
    assert (back.body, back.id, back.job) == (message.body, message.id, message.job)
    assert "os" not in scope
