"""The updates of a live display in its cell."""

from __future__ import annotations

import os
import threading
import time
from types import SimpleNamespace

import pytest
from support.waiting import wait_for

from mousetrap.notebook import kernel_end
from mousetrap.notebook import live as live_module
from mousetrap.notebook.freshness import VALID
from mousetrap.notebook.kernel_end import EndStep
from mousetrap.notebook.live import ENDED, HEARTBEAT, MAX_UPDATES_PER_SECOND, STOPPED, LiveDisplay


class Counter:
    """Content that is a number, finished when it is negative."""

    def __init__(self) -> None:
        self.number = 0
        self.measured = 0
        self.is_closed = False

    def poll(self) -> int:
        return self.number

    def render(self, number, *, end):
        return {"text/plain": f"{number} {end}".strip()}

    def is_finished(self, number) -> bool:
        return number < 0

    def measure(self) -> None:
        self.measured += 1

    def close(self) -> None:
        self.is_closed = True


class Shell:
    """The part of an IPython shell that a display needs."""

    def __init__(self) -> None:
        self.execution_count = 1
        self.published = []  # when, is it an update, text, id
        self.hooks = []
        self.display_pub = SimpleNamespace(publish=self._publish)
        self.events = SimpleNamespace(
            register=lambda _, hook: self.hooks.append(hook),
            unregister=lambda _, hook: self.hooks.remove(hook),
            callbacks={"post_run_cell": self.hooks},
        )

    def _publish(self, *, data, transient, update, **_):
        record = (time.monotonic(), update, data["text/plain"], transient["display_id"])
        self.published.append(record)

    def texts(self):
        return [text for _, _, text, _ in self.published]

    def end_cell(self):
        for hook in list(self.hooks):
            hook(None)
        self.execution_count += 1


@pytest.fixture
def shell(monkeypatch):
    shell = Shell()
    monkeypatch.setattr(live_module, "ipython_shell", lambda: shell)
    monkeypatch.setattr(live_module, "is_kernel", lambda: True)
    return shell


@pytest.fixture
def counter():
    return Counter()


@pytest.fixture
def live(shell, counter):
    live = LiveDisplay(counter)
    yield live
    live.stop()


def test_live_updates_the_display_that_it_made(shell, counter, live):
    """After the first display there are only updates with its id."""
    assert live.show()
    shell.end_cell()
    counter.number = 1
    wait_for(lambda: "1" in shell.texts())

    kinds = [update for _, update, _, _ in shell.published]
    assert kinds == [False] + [True] * (len(kinds) - 1)
    assert len({id for *_, id in shell.published}) == 1


def test_live_shows_itself_once_in_a_cell(shell, counter, live):
    """Called twice in a cell it is displayed once, and again in the next cell."""
    assert [live.show(), live.show()] == [True, False]
    shell.end_cell()
    assert live.show()
    assert [update for _, update, _, _ in shell.published] == [False, False]


def test_live_sends_at_most_two_updates_a_second(shell, counter, live):
    """However fast the content changes and cells end, no second has more updates."""
    live.show()
    started = time.monotonic()
    while time.monotonic() < started + 2.5:
        counter.number += 1
        shell.end_cell()
        threading.Event().wait(0.001)
    counter.number = -1
    wait_for(lambda: "-1" in shell.texts())

    times = [at for at, *_ in shell.published]
    assert len(times) >= 2.5 * MAX_UPDATES_PER_SECOND - 1  # and it does not stop
    for n in range(len(times) - MAX_UPDATES_PER_SECOND):
        assert times[n + MAX_UPDATES_PER_SECOND] - times[n] >= 1.0


def test_live_sends_nothing_when_nothing_has_changed(shell, counter, live, monkeypatch):
    """Polls of unchanged content send nothing before the time of a heartbeat."""
    monkeypatch.setattr(live_module, "HEARTBEAT", 60.0)
    live.show()
    before = counter.measured
    wait_for(lambda: counter.measured >= before + 2)
    shell.end_cell()

    assert len(shell.published) == 1


def test_live_sends_an_unchanged_state_again(shell, counter, live, monkeypatch):
    """Content that shows its age is sent at regular times, changed or not; and stops when idle."""
    monkeypatch.setattr(live_module, "HEARTBEAT", 0.0)
    live.show()
    wait_for(lambda: len(shell.published) >= 3)

    assert set(shell.texts()) == {"0"}
    monkeypatch.setattr(live_module, "MAX_IDLE", 0.0)
    wait_for(lambda: not live.is_running)


def test_mark_outlasts_the_pause_between_two_updates():
    """While updates come in time, even one that is late, no reader sees the faded mark."""
    assert 2 * HEARTBEAT + live_module.IDLE_REFRESH_INTERVAL < VALID


def test_live_is_up_to_date_at_the_end_of_the_cell(shell, counter, live, monkeypatch):
    """The end of a cell updates the display, because papermill reads nothing between two cells."""
    monkeypatch.setattr(live_module, "REFRESH_INTERVAL", 60.0)
    live.show()
    wait_for(lambda: counter.measured)
    counter.number = 5
    shell.end_cell()
    assert shell.texts()[-1] == "5"
    counter.number = -1
    shell.end_cell()

    assert shell.texts()[-1] == "-1"


def test_live_ends_by_itself_when_all_is_over(shell, counter, live):
    """When the content is finished, its thread and hook end; the last state stays."""
    live.show()
    assert live.is_running
    counter.number = -1
    wait_for(lambda: not live.is_running)

    assert shell.texts()[-1] == "-1"
    assert (shell.hooks, counter.is_closed) == ([], True)


def test_live_ends_when_it_is_stopped_or_nothing_happens_for_an_hour(
    shell, counter, live, monkeypatch
):
    """The last update says that it stopped; `show` starts it again."""
    live.show()
    live.stop()
    assert (live.is_running, shell.texts()[-1]) == (False, f"0 {STOPPED}")

    monkeypatch.setattr(live_module, "MAX_IDLE", 0.0)
    shell.end_cell()
    live.show()
    wait_for(lambda: not live.is_running)
    assert shell.texts()[-2:] == ["0", f"0 {STOPPED}"]


# ---- at the end of the process -------------------------------------------------------------------


@pytest.fixture
def end(monkeypatch):
    """Return a function that does what the end of the process does."""
    registered = []
    monkeypatch.setattr(kernel_end, "_process", 0)
    monkeypatch.setattr(kernel_end, "_actions", {})
    monkeypatch.setattr(kernel_end.atexit, "register", registered.append)

    def end():
        [action] = registered  # once, however many displays and consumers there were
        action()

    return end


@pytest.mark.parametrize("is_shown_first", [True, False])
def test_last_state_is_shown_after_the_consumers_have_stopped(
    shell, counter, live, end, is_shown_first
):
    """Its numbers are final whatever was registered first, and nothing is sent after it."""

    def stop_consumers():
        counter.number = 7
        shell.end_cell()  # an update at the wrong time, by whatever

    steps = [lambda: kernel_end.at_end(EndStep.STOP_CONSUMERS, stop_consumers), live.show]
    for step in reversed(steps) if is_shown_first else steps:
        step()
    end()
    wait_for(lambda: not live.is_running)

    assert shell.texts()[-1] == f"7 {ENDED}"
    assert "7" not in shell.texts()


def test_display_that_has_ended_before_is_left_alone(shell, counter, live, end):
    """The end of the process changes only what was still kept up to date."""
    live.show()
    live.stop()
    before = shell.texts()
    end()

    assert shell.texts() == before


def test_last_state_does_not_wait_for_a_measurement(shell, counter, live, end, monkeypatch):
    """While the thread waits for a broker, the last state is shown without it."""
    monkeypatch.setattr(live_module, "LAST_STATE_TIMEOUT", 0.01)
    gate, measuring = threading.Event(), threading.Event()

    def measure():
        measuring.set()
        gate.wait(20)

    monkeypatch.setattr(counter, "measure", measure)
    live.show()
    assert measuring.wait(10)
    end()
    texts = shell.texts()
    gate.set()

    assert texts[-1] == f"0 {ENDED}"


def test_last_state_is_sent_by_a_thread_that_may_still_send(shell, counter, live, end):
    """Once Python ends, a kernel sends nothing from its main thread."""
    senders = []
    publish = shell.display_pub.publish
    shell.display_pub.publish = lambda **message: (
        senders.append(threading.current_thread()), publish(**message)
    )  # fmt: skip
    live.show()
    end()

    assert shell.texts()[-1] == f"0 {ENDED}"
    assert senders[-1] is not threading.main_thread()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_forked_child_shows_nothing_of_its_parent(shell, live, end):
    """The displays and consumers of the parent do not end with its child."""
    live.show()
    child = os.fork()
    if child == 0:
        end()
        kernel_end.at_end(EndStep.STOP_CONSUMERS, lambda: None)  # of its own
        end()
        os._exit(any(ENDED in text for text in shell.texts()))

    assert os.waitpid(child, 0)[1] == 0
