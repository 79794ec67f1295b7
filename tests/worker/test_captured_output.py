"""What handlers print is kept with their message; what other threads print is not touched."""

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
from mousetrap.worker.captured_output import MAX_ATTEMPT_OUTPUT, MAX_OUTPUT, OutputCapture, Outputs


@pytest.fixture(autouse=True)
def as_before():
    """Check that each test restores the streams."""
    before = sys.stdout, sys.stderr
    yield
    for handle in registry.handles():
        handle.stop()
    assert (sys.stdout, sys.stderr) == before
    assert [type(each) for each in before] == [type(sys.stdout), type(sys.stderr)]


@contextlib.contextmanager
def capturing():
    """Give a started capture; not a fixture, because pytest replaces the streams after fixtures."""
    capture = OutputCapture()
    capture.start()
    try:
        yield capture
    finally:
        capture.stop()


def texts(capture):
    return [output.text for output in capture.outputs()]


def outputs_of(handle, message):
    return [output.text for output in handle.output(None) if output.id == message.id]


def test_output_is_kept_with_its_message(settings, capsys):
    """Prints, errors and logs of a handler are kept in their order and not shown."""
    log = logging.getLogger("test_output")
    early = logging.StreamHandler()  # it holds the stream from before the capture
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
        assert outputs_of(handle, message) == [f"out {n}\nerr {n}\nlog {n}\n"]
    assert capsys.readouterr().out == "mine\n"
    assert early.stream is sys.stderr
    assert outputs_of(handle, Message()) == []


def test_log_lines_of_mousetrap_and_pika_are_not_the_handlers(settings, capsys):
    """They go to the real stream, whether the worker or the handler's own code caused them."""
    ours = [logging.getLogger(name) for name in ("mousetrap", "pika")]
    before = [each.level for each in ours]
    handler = logging.StreamHandler()
    logging.getLogger().addHandler(handler)
    for each in ours:
        each.setLevel(logging.INFO)

    def fails(n: int) -> None:
        print("mine")
        logging.getLogger("mousetrap.somewhere").warning("ours")
        logging.getLogger("pika.adapters").warning("pika's")
        logging.getLogger("mousetraps").warning("theirs")
        raise ValueError(n)

    handle = consume("work", fails, settings, retry_delays=())
    [message] = send(settings, 1)
    handle.wait_until(dead=1)
    handle.stop()
    logging.getLogger().removeHandler(handler)
    for each, level in zip(ours, before, strict=True):
        each.setLevel(level)

    assert outputs_of(handle, message) == ["mine\ntheirs\n"]
    shown = capsys.readouterr().err
    assert "ours\n" in shown
    assert "pika's\n" in shown
    assert "ValueError -> work.dead" in shown


def test_output_of_coroutines_is_kept_apart(settings, capsys):
    """Coroutines of one thread have outputs of their own, with `asyncio.to_thread` as well."""

    async def talks(n: int) -> None:
        print("a", n)
        await asyncio.sleep(0.05)
        print("b", n)
        await asyncio.to_thread(print, "c", n)

    handle = consume("work", talks, settings, concurrency=10)
    send(settings, *range(10))
    handle.wait_until(done=10)

    assert sorted(output.text for output in handle.output()) == [
        f"a {n}\nb {n}\nc {n}\n" for n in range(10)
    ]
    assert capsys.readouterr().out == ""


def test_output_of_each_attempt_is_kept(settings):
    """A retry is another attempt: it has an output of its own with the same message id."""

    def fails(_: int) -> None:
        attempt = mousetrap.model.message.current_message.get().attempt
        print("attempt", attempt)
        raise ValueError(f"no luck at {attempt}")

    handle = consume("work", fails, settings, retry_delays=(0.05,))
    [message] = send(settings, 1)
    handle.wait_until(dead=1)

    assert [(output.attempt, output.text.splitlines()[0]) for output in handle.output()] == [
        (1, "attempt 1"), (2, "attempt 2"),
    ]  # fmt: skip
    assert [text.splitlines()[0] for text in outputs_of(handle, message)] == [
        "attempt 1", "attempt 2",
    ]  # fmt: skip


def test_output_never_travels(settings):
    """Output is in no header of a dead letter, because it may quote the body."""

    def quotes(card: str) -> None:
        print("looking at", card)
        raise ValueError("no luck")

    handle = consume(mousetrap.Queue("work", ()), quotes, settings)
    send(settings, "4711-canary")
    handle.wait_until(dead=1)
    [dead_lettered] = mousetrap.drain("work.dead", settings=settings)

    assert "4711-canary" in str(handle.output())
    assert "4711-canary" not in repr(dict(dead_lettered.headers))


def test_prints_of_other_threads_go_to_the_stream(settings, capsys):
    """Only the thread that handles a message is captured, while other threads print."""
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
    """A handler may use `redirect_stdout`: the capture does not interfere."""
    with capturing() as capture:
        with capture.handling("work", Message()):
            print("before")
            with contextlib.redirect_stdout(io.StringIO()) as caught:
                print("caught")
                with capture.handling("work", Message()):  # another message is handled meanwhile
                    pass
                print("caught too")
            print("after")

        assert caught.getvalue() == "caught\ncaught too\n"
        assert texts(capture) == ["before\nafter\n"]


def test_captures_can_be_nested(capsys):
    """Inner output belongs to the inner message; after the outer message prints are shown."""
    with capturing() as capture:
        with capture.handling("work", Message()):
            print("outer")
            with capture.handling("work", Message()):
                print("inner")
            print("outer again")
        print("shown")

        assert texts(capture) == ["outer\nouter again\n", "inner\n"]
        assert capsys.readouterr().out == "shown\n"


def test_stream_proxy_has_the_class_and_attributes_of_its_stream(capsys):
    """`isinstance` and attributes behave as with the stream itself."""
    with capturing() as capture:
        stream = captured_output._stream_of(sys.stdout)

        assert isinstance(sys.stdout, type(stream))
        assert sys.stdout.encoding == stream.encoding
        assert repr(sys.stdout) == repr(stream)
        sys.stdout.custom = 1
        assert stream.custom == 1
        del sys.stdout.custom
        assert not hasattr(stream, "custom")
        with pytest.raises(TypeError, match="must be str"), capture.handling("work", Message()):
            sys.stdout.write(b"bytes")


def test_stream_proxy_accepts_a_writer_assigned_to_it(capsys):
    """IPython assigns `write` for each cell and restores what it found, thousands of times."""
    with capturing() as capture:
        for n in range(2000):
            found = sys.stdout.write

            seen = []

            def tee(text, found=found, seen=seen):
                seen.append(text)
                return found(text)

            sys.stdout.write = tee
            print("cell", n)
            with capture.handling("work", Message()):
                print("handler", n)
            sys.stdout.write = found
            assert seen == [f"cell {n}", "\n"] or seen == ["cell", " ", str(n), "\n"]
        print("end")

        assert capsys.readouterr().out.endswith("cell 1999\nend\n")
        assert texts(capture)[-1] == "handler 1999\n"


def test_stream_proxy_is_installed_again_when_an_earlier_redirection_ends(capsys, monkeypatch):
    """After ``%%capture`` in the cell that consumes, handlers of later messages are captured."""
    capture = OutputCapture()
    with contextlib.redirect_stdout(io.StringIO()):
        capture.start()
    monkeypatch.setattr(sys, "__stdout__", sys.stdout)
    with capture.handling("work", Message()):
        print("kept")
    capture.stop()

    assert texts(capture) == ["kept\n"]
    assert capsys.readouterr().out == ""


def test_two_captures_share_the_streams(capsys):
    """When one of two captures stops, the other one still captures."""
    one, two = OutputCapture(), OutputCapture()
    one.start()
    two.start()
    one.stop()
    with two.handling("work", Message()):
        print("kept")
    two.stop()

    assert texts(two) == ["kept\n"]
    assert capsys.readouterr().out == ""


def test_output_of_one_message_is_capped():
    """The end is kept, and a line says how many characters were dropped before it."""
    with capturing() as capture:
        for text in ("x" * 100 + "\n") * 1000, "y" * (3 * MAX_ATTEMPT_OUTPUT):
            with capture.handling("work", Message()):
                print(text, end="")
        with capture.handling("work", Message()):
            for _ in range(3 * MAX_ATTEMPT_OUTPUT):
                print("z", end="")

        for output in capture.outputs():
            assert len(output.text) == output.size == MAX_ATTEMPT_OUTPUT
            assert len(output._chunks) <= MAX_ATTEMPT_OUTPUT / 1000 + 2
        dropped = 101_000 - MAX_ATTEMPT_OUTPUT
        assert capture.outputs()[0].lines()[0] == f"... {dropped:,} characters before"
        assert capture.outputs()[1].cut == capture.outputs()[2].cut == 2 * MAX_ATTEMPT_OUTPUT


def test_output_in_total_is_capped():
    """The oldest output is dropped; an output that is written to again counts as new."""
    with capturing() as capture:
        first = capture.handling("work", Message(id="first"))
        with first:
            print("a" * 5000)
        for _ in range(2 * MAX_OUTPUT // MAX_ATTEMPT_OUTPUT):
            with capture.handling("work", Message()):
                print("b" * MAX_ATTEMPT_OUTPUT)
        assert sum(output.size for output in capture.outputs()) <= MAX_OUTPUT
        assert capture.outputs("first") == []
        with first:
            print("again")

        assert capture.outputs()[-1].id == "first"
        assert sum(output.size for output in capture.outputs()) <= MAX_OUTPUT


def test_outputs_show_themselves():
    """Outputs have a text and an HTML form; of a progress bar only the last state is shown."""
    with capturing() as capture:
        with capture.handling("work", Message(id="0123456789")):
            print("10 %\r50 %\r100 %\n\x1b[31mred\x1b[0m <b>bold</b>")
        shown = Outputs(capture.outputs())

        assert repr(shown).startswith("message 01234567, attempt 1, ")
        assert repr(shown).endswith("\n  100 %\n  red <b>bold</b>")
        assert "  red &lt;b&gt;bold&lt;/b&gt;</pre>" in shown._repr_html_()
        assert len(shown) == len(shown[:1]) == len(list(shown)) == 1
        assert repr(Outputs([])) == "nothing was printed"


def test_handle_gives_the_last_outputs(settings):
    """`Handle.output` returns as many outputs as asked for, the newest last."""
    handle = consume("work", print, settings)
    send(settings, *range(5))
    handle.wait_until(done=5)

    assert [output.text for output in handle.output(2)] == ["3\n", "4\n"]
    assert len(handle.output(None)) == 5
    assert len(handle.output(0)) == 0


# ---- in a real kernel: nothing that a handler prints may appear in any cell -------------------


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
    """Neither the cell that consumes nor a later one shows the output of threads or coroutines."""
    first = kernel.run(CELL)
    second = kernel.run(
        "for queue in ('one', 'two'): publisher.publish_many(map(Message, range(4)), queue)"
    )
    third = kernel.run("go.set(); one.wait_until(dead=4); two.wait_until(done=4); print('mine')")
    kernel.read(0.5)  # late output would arrive now

    for cell in (first, second):
        assert (cell.stdout, cell.stderr) == ("", "")
    assert (third.stdout, third.stderr, third.shown) == ("mine\n", "", [])
    ones = kernel.value("sorted(output.lines() for output in one.output())")
    twos = kernel.value("sorted(output.text for output in two.output())")
    for n, lines in enumerate(ones):
        assert lines[:4] == [f"out {n}", f"err {n}", f"log {n}", f"shown {n}"]
        assert f"UserWarning: mind {n}" in lines[4]
        assert "-> one.dead" not in "\n".join(lines)  # the worker's own words
    assert twos == [f"la {n}\nli {n}\n{n}\n" for n in range(4)]


def test_threads_of_the_user_print_as_without_a_consumer(kernel):
    """Their text appears in the cell that ipykernel chooses, with a consumer or without."""
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


def test_streams_of_a_kernel_are_restored(kernel):
    """After the last consumer stops, no proxy is left in place of a stream."""
    kernel.run("before = sys.stdout, sys.stderr\nhandle = consume('work', print)")
    assert kernel.value("sys.stdout is before[0], isinstance(sys.stdout, type(before[0]))") == (
        False, True,
    )  # fmt: skip
    kernel.run("handle.stop()")

    assert kernel.value("sys.stdout is before[0], sys.stderr is before[1]") == (True, True)
    assert kernel.run("print('hello')").stdout == "hello\n"
    assert kernel.value("'publish' in vars(get_ipython().display_pub)") is False


def test_run_in_a_kernel_keeps_what_its_stages_print(kernel):
    """The output is in the table and in the text of a failure, not in the cell."""
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
    assert kernel.value("died").endswith("It had printed:\nlooked at 3")
