"""What handlers print is kept with their message, and nobody else's print is touched."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import sys
import threading

import pytest
from support.kernel import Kernel
from support.messages import send

import mousetrap
from mousetrap import Message, consume
from mousetrap.notebook import registry
from mousetrap.worker import captured_output
from mousetrap.worker.captured_output import MOST, MOST_OF_ONE, Outputs, Recorder


@pytest.fixture(autouse=True)
def as_before():
    """After each test the streams are what they were."""
    before = sys.stdout, sys.stderr
    yield
    for handle in registry.handles():
        handle.stop()
    assert (sys.stdout, sys.stderr) == before
    assert [type(each) for each in before] == [type(sys.stdout), type(sys.stderr)]


@contextlib.contextmanager
def recording():
    """A recorder that is at work; not a fixture, because pytest changes the streams after those."""
    recorder = Recorder()
    recorder.start()
    try:
        yield recorder
    finally:
        recorder.stop()


def texts(recorder):
    return [page.text for page in recorder.pages()]


def test_output_is_kept_with_its_message(settings, capsys):
    """Prints, errors and logs of a handler, in their order; nothing of it is shown."""
    log = logging.getLogger("test_output")
    early = logging.StreamHandler()  # it holds the stream of before
    log.addHandler(early)

    def talks(n: int) -> None:
        print("out", n)
        print("err", n, file=sys.stderr)
        log.warning("log %d", n)

    handle = consume("work", talks, settings)
    one, two = send(settings, 1, 2)
    handle.wait_until(done=2)
    print("mine")
    handle.stop()
    log.removeHandler(early)

    for n, message in ((1, one), (2, two)):
        assert captured_output.of(message.id) == f"out {n}\nerr {n}\nlog {n}\n"
    assert capsys.readouterr().out == "mine\n"
    assert early.stream is sys.stderr
    assert captured_output.of("nobody's") == ""


def test_output_of_coroutines_is_kept_apart(settings, capsys):
    """Many at a time in one thread, and what they hand to other threads."""

    async def talks(n: int) -> None:
        print("a", n)
        await asyncio.sleep(0.05)
        print("b", n)
        await asyncio.to_thread(print, "c", n)

    handle = consume("work", talks, settings, concurrency=10)
    send(settings, *range(10))
    handle.wait_until(done=10)

    assert sorted(page.text for page in handle.output()) == [
        f"a {n}\nb {n}\nc {n}\n" for n in range(10)
    ]
    assert capsys.readouterr().out == ""


def test_output_of_each_attempt_is_kept(settings):
    """A retry is another handling: its output is its own, and all belong to the message."""

    def fails(_: int) -> None:
        attempt = mousetrap.model.message.current_message.get().attempt
        print("attempt", attempt)
        raise ValueError(f"no luck at {attempt}")

    handle = consume("work", fails, settings, retry_delays=(0.05,))
    [message] = send(settings, 1)
    handle.wait_until(dead=1)

    assert [(page.attempt, page.text.splitlines()[0]) for page in handle.output()] == [
        (1, "attempt 1"), (2, "attempt 2"),
    ]  # fmt: skip
    assert "attempt 1\n" in captured_output.of(message.id)
    assert "attempt 2\n" in captured_output.of(message.id)


def test_output_never_travels(settings):
    """It is in no header of a dead letter and in no fate: it may quote the body."""

    def quotes(card: str) -> None:
        print("looking at", card)
        raise ValueError("no luck")

    handle = consume(mousetrap.Queue("work", ()), quotes, settings)
    send(settings, "4711-canary")
    handle.wait_until(dead=1)
    [dead_lettered] = mousetrap.drain("work.dead", settings=settings)

    assert "4711-canary" in str(handle.output())
    assert "4711-canary" not in repr(dict(dead_lettered.headers))


def test_prints_of_other_threads_go_where_they_went(settings, capsys):
    """Only who handles a message is recorded, however many do at that moment."""
    gate, here = threading.Event(), threading.Event()

    def talks(_: int) -> None:
        print("handler")
        here.set()
        gate.wait(10)

    handle = consume("work", talks, settings)
    send(settings, 1)
    assert here.wait(10)
    thread = threading.Thread(target=print, args=("thread",))
    thread.start()
    thread.join()
    print("main")
    sys.stdout.writelines(["one\n", "two\n"])
    gate.set()
    handle.wait_until(done=1)

    assert capsys.readouterr().out == "thread\nmain\none\ntwo\n"
    assert str(handle.output()) == "handler\n"


def test_handler_that_captures_its_own_output_gets_it():
    """`redirect_stdout` in a handler is the handler's business."""
    with recording() as recorder:
        with recorder(Message()):
            print("before")
            with contextlib.redirect_stdout(io.StringIO()) as caught:
                print("caught")
                with recorder(Message()):  # another message begins meanwhile
                    pass
                print("caught too")
            print("after")

        assert caught.getvalue() == "caught\ncaught too\n"
        assert texts(recorder) == ["before\nafter\n"]


def test_recording_is_nested_and_ends(capsys):
    """Inner output is the inner message's; after the last there is nobody to keep it."""
    with recording() as recorder:
        with recorder(Message()):
            print("outer")
            with recorder(Message()):
                print("inner")
            print("outer again")
        print("nobody")

        assert texts(recorder) == ["outer\nouter again\n", "inner\n"]
        assert capsys.readouterr().out == "nobody\n"


def test_stand_in_is_taken_for_its_stream(capsys):
    """It says that it is of the stream's class, and has all that the stream has."""
    with recording() as recorder:
        stream = captured_output._stream_of(sys.stdout)

        assert isinstance(sys.stdout, type(stream))
        assert sys.stdout.encoding == stream.encoding
        assert repr(sys.stdout) == repr(stream)
        sys.stdout.custom = 1
        assert stream.custom == 1
        del sys.stdout.custom
        assert not hasattr(stream, "custom")
        with pytest.raises(TypeError, match="must be str"), recorder(Message()):
            sys.stdout.write(b"bytes")


def test_stand_in_bears_who_puts_a_writer_of_its_own_there(capsys):
    """IPython does so for each cell and puts back what it found; cells come by the thousand."""
    with recording() as recorder:
        for n in range(2000):
            found = sys.stdout.write

            seen = []

            def tee(text, found=found, seen=seen):
                seen.append(text)
                return found(text)

            sys.stdout.write = tee
            print("cell", n)
            with recorder(Message()):
                print("handler", n)
            sys.stdout.write = found
            assert seen == [f"cell {n}", "\n"] or seen == ["cell", " ", str(n), "\n"]
        print("end")

        assert capsys.readouterr().out.endswith("cell 1999\nend\n")
        assert texts(recorder)[-1] == "handler 1999\n"


def test_stand_in_comes_back_when_a_capture_ends_that_was_there_first(capsys, monkeypatch):
    """``%%capture`` in the cell that consumes: afterwards the real stream is there again."""
    recorder = Recorder()
    with contextlib.redirect_stdout(io.StringIO()):
        recorder.start()
    monkeypatch.setattr(sys, "__stdout__", sys.stdout)
    with recorder(Message()):
        print("kept")
    recorder.stop()

    assert texts(recorder) == ["kept\n"]
    assert capsys.readouterr().out == ""


def test_two_recorders_share_the_streams(capsys):
    """The first to stop does not take the streams from the other."""
    one, two = Recorder(), Recorder()
    one.start()
    two.start()
    one.stop()
    with two(Message()):
        print("kept")
    two.stop()

    assert texts(two) == ["kept\n"]
    assert capsys.readouterr().out == ""


def test_output_of_one_message_is_capped():
    """The end is kept, and it says how much came before; line by line or all at once."""
    with recording() as recorder:
        for text in ("x" * 100 + "\n") * 1000, "y" * (3 * MOST_OF_ONE):
            with recorder(Message()):
                print(text, end="")
        with recorder(Message()):
            for _ in range(3 * MOST_OF_ONE):
                print("z", end="")

        for page in recorder.pages():
            assert len(page.text) == page.size == MOST_OF_ONE
            assert len(page._chunks) <= MOST_OF_ONE / 1000 + 2
        assert recorder.pages()[0].lines()[0] == f"... {101_000 - MOST_OF_ONE:,} characters before"
        assert recorder.pages()[1].cut == recorder.pages()[2].cut == 2 * MOST_OF_ONE


def test_output_in_total_is_capped():
    """The oldest is forgotten; a page that is written on again is among the newest."""
    with recording() as recorder:
        first = recorder(Message(id="first"))
        with first:
            print("a" * 5000)
        for _ in range(2 * MOST // MOST_OF_ONE):
            with recorder(Message()):
                print("b" * MOST_OF_ONE)
        assert sum(page.size for page in recorder.pages()) <= MOST
        assert recorder.pages("first") == []
        with first:
            print("again")

        assert recorder.pages()[-1].id == "first"
        assert sum(page.size for page in recorder.pages()) <= MOST


def test_outputs_show_themselves():
    """Text for the terminal and HTML for the page; a progress bar is shown in its last state."""
    with recording() as recorder:
        with recorder(Message(id="0123456789")):
            print("10 %\r50 %\r100 %\n\x1b[31mred\x1b[0m <b>bold</b>")
        shown = Outputs(recorder.pages())

        assert repr(shown).startswith("message 01234567, attempt 1, ")
        assert repr(shown).endswith("\n  100 %\n  red <b>bold</b>")
        assert "  red &lt;b&gt;bold&lt;/b&gt;</pre>" in shown._repr_html_()
        assert len(shown) == len(shown[:1]) == len(list(shown)) == 1
        assert repr(Outputs([])) == "nothing was printed"


def test_handle_gives_the_last_outputs(settings):
    """So many as are asked for, the newest last."""
    handle = consume("work", print, settings)
    send(settings, *range(5))
    handle.wait_until(done=5)

    assert [page.text for page in handle.output(2)] == ["3\n", "4\n"]
    assert len(handle.output(None)) == 5
    assert len(handle.output(0)) == 0


# ---- in a real kernel: whichever cell it says it is of, nothing may come there ----------------


@pytest.fixture
def kernel(settings):
    with Kernel(settings.to_environment()) as kernel:
        kernel.run("publisher = Publisher().open()")
        yield kernel


CELL = """
import asyncio, logging, warnings
from IPython.display import display
log = logging.getLogger("handlers")
log.addHandler(logging.StreamHandler())
log.propagate = False
go = threading.Event()
def talks(n: int) -> None:
    go.wait(20)
    print("out", n, flush=True); print("err", n, file=sys.stderr); log.warning("log %d", n)
    display({"text/plain": f"shown {n}"}, raw=True)
    warnings.warn(f"mind {n}")
    raise ValueError
async def sings(n: int) -> None:
    print("la", n)
    await asyncio.to_thread(print, "li", n)
    await asyncio.to_thread(display, n)
one, two = consume(Queue("one", ()), talks, concurrency=4), consume("two", sings, concurrency=4)
"""


def test_output_in_a_kernel_comes_into_no_cell(kernel):
    """Of threads and coroutines: neither the cell that consumes nor any later one shows it."""
    first = kernel.run(CELL)
    second = kernel.run(
        "for queue in ('one', 'two'): publisher.publish_many(map(Message, range(4)), queue)"
    )
    third = kernel.run("go.set(); one.wait_until(dead=4); two.wait_until(done=4); print('mine')")
    kernel.read(0.5)  # whatever is still on its way

    for cell in (first, second):
        assert (cell.stdout, cell.stderr) == ("", "")
    assert (third.stdout, third.stderr, third.shown) == ("mine\n", "", [])
    ones = kernel.value("sorted(page.lines() for page in one.output())")
    twos = kernel.value("sorted(page.text for page in two.output())")
    for n, lines in enumerate(ones):
        assert lines[:4] == [f"out {n}", f"err {n}", f"log {n}", f"shown {n}"]
        assert f"UserWarning: mind {n}" in lines[4]
        assert "attempt 1: ValueError -> one.dead" in lines[-1]  # what the worker logs of it
    assert twos == [f"la {n}\nli {n}\n{n}\n" for n in range(4)]


def test_threads_of_the_user_print_as_ever(kernel):
    """Into which cell is ipykernel's business; it is the same with and without a consumer."""
    code = """
go = threading.Event()
def later():
    go.wait(20)
    print("later", flush=True)
threading.Thread(target=later).start()
"""
    places = []
    for begin in ("", "handle = consume('work', print)\n"):
        start = kernel.run(begin + code)
        newest = kernel.run("go.set(); time.sleep(0.3)")
        kernel.read(0.3)
        places.append([start.stdout, newest.stdout])

    assert places[0] == places[1]
    assert sorted(places[0]) == ["", "later\n"]


def test_streams_of_a_kernel_are_given_back(kernel):
    """After the last consumer there is nothing of ours in the way."""
    kernel.run("before = sys.stdout, sys.stderr\nhandle = consume('work', print)")
    assert kernel.value("sys.stdout is before[0], isinstance(sys.stdout, type(before[0]))") == (
        False, True,
    )  # fmt: skip
    kernel.run("handle.stop()")

    assert kernel.value("sys.stdout is before[0], sys.stderr is before[1]") == (True, True)
    assert kernel.run("print('hello')").stdout == "hello\n"
    assert kernel.value("'publish' in vars(get_ipython().display_pub)") is False


def test_run_in_a_kernel_keeps_what_its_stages_print(kernel):
    """With the message, in the table and with the failure; not in the cell."""
    cell = kernel.run("""
@mousetrap.stage(reads="numbers", retry_delays=())
def picky(n: int) -> None:
    print("looked at", n)
    if n == 3:
        raise ValueError("not three")

with mousetrap.run(picky, Settings.from_environment()) as run:
    run.send_many(range(5))
    run.settle(timeout=20)
    table = run.messages()
    try:
        run.settle(timeout=1, fail_fast=True)
    except mousetrap.MousetrapError as error:
        died = str(error)
""")
    kernel.read(0.3)

    assert "looked at" not in cell.stdout + cell.stderr
    assert "looked at 0" in kernel.value("[row['printed'] for row in table]")
    assert "ValueError: not three" in kernel.value("died")
    assert "It had printed:\nlooked at 3\n" in kernel.value("died")
