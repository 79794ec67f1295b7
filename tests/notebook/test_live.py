"""The updates of a live display in its cell."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest
from support.waiting import wait_for

from mousetrap.notebook import live as live_module
from mousetrap.notebook.live import MAX_UPDATES_PER_SECOND, LiveDisplay


class Counter:
    """Content that is a number, finished when it is negative."""

    def __init__(self) -> None:
        self.number = 0
        self.measured = 0
        self.is_closed = False

    def poll(self) -> int:
        return self.number

    def render(self, number, *, is_live):
        return {"text/plain": f"{number}{'' if is_live else ' not live'}"}

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


def test_live_sends_at_most_four_updates_a_second(shell, counter, live):
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
    assert len(times) >= 2.5 * 2  # and it does not stop
    for n in range(len(times) - MAX_UPDATES_PER_SECOND):
        assert times[n + MAX_UPDATES_PER_SECOND] - times[n] >= 1.0


def test_live_sends_nothing_when_nothing_has_changed(shell, counter, live):
    """Polls of unchanged content send nothing."""
    live.show()
    before = counter.measured
    wait_for(lambda: counter.measured >= before + 2)
    shell.end_cell()

    assert len(shell.published) == 1


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
    assert (live.is_running, shell.texts()[-1]) == (False, "0 not live")

    monkeypatch.setattr(live_module, "MAX_IDLE", 0.0)
    shell.end_cell()
    live.show()
    wait_for(lambda: not live.is_running)
    assert shell.texts()[-2:] == ["0", "0 not live"]
