"""Hooks: which method is called when and on which thread, and that their errors harm no message."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import re
import textwrap
import threading
from collections import Counter

import pytest
from support.messages import send
from support.waiting import wait_for

from mousetrap.errors import MousetrapError
from mousetrap.job_queue import depth, drain
from mousetrap.model.message import Message
from mousetrap.model.outcome import Outcome
from mousetrap.model.topology import Queue
from mousetrap.worker import hooks
from mousetrap.worker.hooks import Hook, Hooks
from mousetrap.worker.worker import Worker

RETRIED_ONCE = Queue("work", retry_delays=(0.05,))

label = contextvars.ContextVar("label", default="")


def negate(n: int) -> int:
    if n == 0:
        raise ValueError("no luck with zero")
    return -n


async def negate_later(n: int) -> int:
    await asyncio.sleep(0)
    return negate(n)


class Recorder(Hook):
    """Keeps every call of every method, with the name of its thread."""

    def __init__(self):
        self.calls = []

    def note(self, step, *arguments):
        self.calls.append((step, threading.current_thread().name, *arguments))

    def received(self, queue, message_id):
        self.note("received", queue, message_id)

    def started(self, queue, message):
        self.note("started", queue, message.id)

    @contextlib.contextmanager
    def handling(self, queue, message):
        self.note("entered", queue, message.id)
        yield
        self.note("left", queue, message.id)

    def published(self, queue, message, target):
        self.note("published", queue, message.id, target)

    def finished(self, queue, outcome):
        self.note("finished", queue, outcome.id, outcome.kind, outcome.seconds)

    def reconnected(self, queue):
        self.note("reconnected", queue)

    def stopped(self, queue, error):
        self.note("stopped", queue, error)

    def steps(self):
        return [step for step, *_ in self.calls]

    def threads_of(self, step):
        return {thread for each, thread, *_ in self.calls if each == step}


# ---- with a broker -------------------------------------------------------------------------------


@pytest.mark.parametrize("handler", [negate, negate_later])
def test_hooks_are_called_at_each_step_of_a_message(settings, handler):
    """One message that succeeds: each method once, in this order, on the documented thread."""
    hook = Recorder()
    [sent] = send(settings, 7)
    with Worker(RETRIED_ONCE, handler, settings, writes="out", hooks=[hook]) as worker:
        worker.wait_until(done=1)
        assert "finished" in hook.steps()
    [result] = drain("out", settings=settings)

    assert Counter(hook.steps()).most_common(1)[0][1] == 1
    # `left` is on another thread than `published`, which may come first
    assert [step for step in hook.steps() if step != "left"] == [
        "received", "started", "entered", "published", "finished", "stopped",
    ]  # fmt: skip
    assert {call[2] for call in hook.calls} == {"work"}
    of = {call[0]: call[3:] for call in hook.calls}
    assert of["received"] == of["started"] == of["entered"] == of["left"] == (sent.id,)
    assert of["published"] == (result.id, settings.topology.wire_name("out"))
    assert of["finished"][:2] == (sent.id, "done")
    assert 0 <= of["finished"][2] < 10
    assert of["stopped"] == (None,)
    [io_thread] = hook.threads_of("received")
    assert hook.threads_of("published") == hook.threads_of("finished") == {io_thread}
    [executor_thread] = hook.threads_of("started")
    assert hook.threads_of("entered") == hook.threads_of("left") == {executor_thread}
    assert executor_thread != io_thread


def test_hooks_see_a_retry_and_a_dead_letter(settings):
    """A message that fails twice is received, started and published twice, with two outcomes."""
    hook = Recorder()
    [sent] = send(settings, 0)
    with Worker(RETRIED_ONCE, negate, settings, hooks=[hook]) as worker:
        worker.wait_until(dead=1)

    counts = Counter(hook.steps())
    assert counts["received"] == counts["started"] == counts["published"] == 2
    finished = [call[3:5] for call in hook.calls if call[0] == "finished"]
    assert finished == [(sent.id, "retried"), (sent.id, "dead")]
    targets = [call[4] for call in hook.calls if call[0] == "published"]
    assert targets == [
        settings.topology.wire_name(name) for name in ("work.retry.0.05s", "work.dead")
    ]


def test_handling_surrounds_the_handler(settings):
    """A context variable that is set when the context is entered is seen by the handler."""

    class Labels(Hook):
        @contextlib.contextmanager
        def handling(self, _, message):
            token = label.set(f"label of {message.data}")
            yield
            label.reset(token)

    seen = []

    def look(_: int) -> None:
        seen.append(label.get())

    send(settings, 1, 2)
    with Worker(RETRIED_ONCE, look, settings, hooks=[Labels()]) as worker:
        worker.wait_until(done=2)

    assert seen == ["label of 1", "label of 2"]


def test_several_hooks_are_called_in_their_order(settings):
    """Contexts are entered in the order of the hooks and left in the opposite order."""
    order = []

    class Named(Hook):
        def __init__(self, name):
            self.name = name

        def started(self, *_):
            order.append(f"started {self.name}")

        @contextlib.contextmanager
        def handling(self, *_):
            order.append(f"entered {self.name}")
            yield
            order.append(f"left {self.name}")

    send(settings, 1)
    worker = Worker(RETRIED_ONCE, negate, settings, hooks=[Named("a")])
    worker.add_hook(Named("b"))
    with worker:
        worker.wait_until(done=1)

    assert order == ["started a", "started b", "entered a", "entered b", "left b", "left a"]


@pytest.mark.parametrize("error", [ValueError("4711-canary"), SystemExit(3)])
def test_an_error_in_a_hook_does_not_harm_the_message(settings, caplog, error):
    """Every method raises: messages are done, retried and dead-lettered all the same."""

    class Broken(Hook):
        def fail(self, *_):
            raise error

        received = started = published = finished = reconnected = stopped = fail

        @contextlib.contextmanager
        def handling(self, *_):
            yield
            raise error

    class BrokenAtOnce(Hook):
        def handling(self, *_):
            raise error

    after = Recorder()
    send(settings, 1, 0, 2)
    with Worker(
        RETRIED_ONCE, negate, settings, writes="out", hooks=[Broken(), BrokenAtOnce(), after]
    ) as worker:
        worker.wait_until(done=2, retried=1, dead=1)
        assert after.steps().count("finished") == 4
        assert worker.statistics().problem == ""

    assert sorted(m.data for m in drain("out", settings=settings)) == [-2, -1]
    assert depth("work", settings).messages == 0
    assert Counter(after.steps())["started"] == Counter(after.steps())["left"] == 4
    warnings = [each.getMessage() for each in caplog.records if "hook" in each.getMessage()]
    for method in ("Broken.fail", "BrokenAtOnce.handling"):
        text = f"work: hook test_an_error_in_a_hook_does_not_harm_the_message.<locals>.{method}"
        assert any(line.startswith(f"{text} raised {type(error).__name__}") for line in warnings)
    assert "4711-canary" not in caplog.text


def test_reconnected_is_called_after_a_cut(settings, proxy):
    """Not for the first connection, but for the one after it was cut."""
    hook = Recorder()
    with Worker(RETRIED_ONCE, negate, proxy.settings, hooks=[hook]):
        assert "reconnected" not in hook.steps()
        proxy.cut()
        wait_for(lambda: "reconnected" in hook.steps())


def test_stopped_is_called_once_with_what_stopped_the_worker(settings):
    """A worker that cannot go on says why, and says no more when it is closed."""
    hook = Recorder()
    error = MousetrapError("no way to go on")
    with Worker(RETRIED_ONCE, negate, settings, hooks=[hook]) as worker:
        worker.fail(error)

    assert [call[3] for call in hook.calls if call[0] == "stopped"] == [error]


def test_hooks_cannot_be_added_to_a_worker_that_was_started(settings):
    """Else it would see the end of messages whose start it has not seen."""
    with (
        Worker(RETRIED_ONCE, negate, settings) as worker,
        pytest.raises(RuntimeError, match="add hooks to a new worker"),
    ):
        worker.add_hook(Recorder())


# ---- without a broker ----------------------------------------------------------------------------


def test_methods_that_are_not_overridden_are_not_called():
    """A worker checks empty tuples only, if no hook overrides a step."""

    class Finished(Hook):
        def finished(self, *_): ...

    made = Hooks("work", [Hook(), Finished()])

    assert len(made.finished) == 1
    for step in ("received", "started", "handling", "published", "reconnected", "stopped"):
        assert getattr(made, step) == ()


def test_methods_of_a_hook_that_do_nothing_can_be_called():
    """A subclass may call the method that it overrides."""
    hook, message = Hook(), Message(1)
    hook.received("work", message.id)
    hook.started("work", message)
    hook.published("work", message, "out")
    hook.reconnected("work")
    hook.stopped("work", None)
    with hook.handling("work", message):
        pass


def test_the_example_in_the_documentation_counts_outcomes():
    """The code in the module's docstring runs as it is."""
    example = textwrap.dedent(re.search(r":\n\n(    .*?\n)\n?(?=\S)", hooks.__doc__, re.S)[1])
    names = {"Counter": Counter, "Worker": lambda *_, hooks: Hooks("start_fetch", hooks),
             "fetch": None}  # fmt: skip
    exec(example, names)

    made = names["worker"]
    made.call(made.finished, Outcome("m1", "done", "fetch", "start_fetch", "host:1", 0.0, 0.1))
    assert made.finished[0].__self__.outcomes == {"done": 1}


@pytest.mark.parametrize("wrong", [Hook, Recorder, print, None])
def test_what_is_no_hook_is_refused(wrong):
    """A class instead of its instance is the likely mistake."""
    with pytest.raises(TypeError, match="instance of a subclass of Hook"):
        Hooks("work", [wrong])


def test_a_failing_method_is_a_warning_once(caplog):
    """A hook that always fails does not fill the log: later failures are logged for debugging."""

    class Broken(Hook):
        def received(self, *_):
            raise ValueError

    made = Hooks("work", [Broken()])
    with caplog.at_level("DEBUG", "mousetrap.worker.hooks"):
        for _ in range(3):
            made.call(made.received, "id")

    assert [each.levelname for each in caplog.records] == ["WARNING", "DEBUG", "DEBUG"]
