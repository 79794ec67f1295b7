"""A display in the cells of a notebook that a thread keeps up to date.

A display that was published with an id can be replaced later by a message with the same id. So the
thread needs no running cell: the update goes to wherever the display is, and never into the newest
cell. Prototyped in ``notebooks/08_watching.ipynb``.
"""

from __future__ import annotations

import sys
from collections import deque
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakSet

from mousetrap.notebook.kernel_end import EndStep, at_end
from mousetrap.runtime import clock, randomness, threads
from mousetrap.runtime.environment import ipython_shell, is_kernel

REFRESH_INTERVAL = 0.5  # seconds between two polls
MAX_SHARE = 0.02  # of a processor that the thread may use; if polls take long, they come less often
MAX_REFRESH_INTERVAL = 4.0  # seconds between two polls, however long they take
IDLE_REFRESH_INTERVAL = 2.0  # seconds between two polls once nothing has changed for IDLE_AFTER
IDLE_AFTER = 60.0  # seconds
HEARTBEAT = 3.0  # seconds after which an unchanged state is sent again: it shows its age
MAX_IDLE = 3600.0  # seconds without a change, after which the display stops; a guess
MEASURE_INTERVAL = 1.0  # seconds between two measurements at the broker
MAX_UPDATES_PER_SECOND = 2  # from the thread and from the ends of cells together
JOIN_TIMEOUT = 5.0  # seconds that `LiveDisplay.stop` waits for the thread
HELD_TIMEOUT = 10.0  # seconds after which the consumers have ended, or the process has
LAST_STATE_TIMEOUT = 1.0  # seconds that the end of a process waits for all threads together

STOPPED = "no longer updated"
ENDED = "the kernel has ended"

MimeBundle = dict[str, str]
State = TypeVar("State")


class Content(Protocol[State]):
    """What a `LiveDisplay` shows."""

    def poll(self) -> State:
        """Return the present state; it compares equal to the last one if nothing has changed."""

    def render(self, state: State, *, end: str) -> MimeBundle:
        """Return *state* by MIME type.

        *end* is why it is the last one: `STOPPED` or `ENDED`, and "" while updates follow.
        """

    def is_finished(self, state: State) -> bool:
        """Return whether *state* will not change any more."""

    def measure(self) -> None:
        """Make the measurements that take time; never called on the thread of a cell."""

    def close(self) -> None:
        """Close the connections that `measure` has opened."""


class LiveDisplay(Generic[State]):
    """Shows *content* in each cell that calls `show`, and updates it until it is finished.

    The display is also updated at the end of each cell, so that the saved output is right where no
    program reads the messages that a kernel sends between two cells, as under papermill. A state
    that does not change is sent again every `HEARTBEAT` seconds, for content that shows how old it
    is. After `MAX_IDLE` seconds without a change the updates stop; `show` starts them again. When
    the process ends in order, the last update says so.

    Threads: any.
    """

    def __init__(self, content: Content[State]) -> None:
        self._content = content
        self._id = randomness.new_id()
        self._lock = threads.RLock()
        self._thread: threads.Thread | None = None
        self._stopped = threads.Event()
        # times of the latest updates, on the monotonic clock
        self._updates: deque[float] = deque(maxlen=MAX_UPDATES_PER_SECOND)
        self._state: State | None = None  # as it is displayed
        self._changed_at = self._sent_at = 0.0  # on the monotonic clock
        self._is_held = False  # the process ends: only the last state may still be sent
        self._released, self._is_over = threads.Event(), threads.Event()
        self._cell: object = None  # the cell of the last `show`

    @property
    def is_running(self) -> bool:
        """Whether the thread keeps the display up to date."""
        return self._thread is not None and self._thread.is_alive()

    def show(self) -> bool:
        """Show the content in the cell that runs now.

        Returns False if the cell shows it already, or if there is no cell.
        """
        if not is_kernel() or self._cell == (cell := ipython_shell().execution_count):
            return False
        self._cell = cell
        with self._lock:
            self._publish(state := self._content.poll(), is_update=False)
            if not self.is_running and not self._content.is_finished(state):
                self._start()
        return True

    def stop(self) -> None:
        """Show the present state and stop the updates. Safe to call twice."""
        self._stopped.set()
        if self._thread is not None and self._thread is not threads.current_thread():
            self._thread.join(JOIN_TIMEOUT)

    def refresh(self) -> bool:
        """Update the display if the state has changed; return whether it is finished.

        At most `MAX_UPDATES_PER_SECOND` are sent: a change that comes too early is left to the next
        poll, and the final state waits until it may be sent.
        """
        with self._lock:
            if self._is_held:
                return True
            state = self._content.poll()
            is_finished = self._content.is_finished(state)
            is_due = clock.monotonic() - self._sent_at >= HEARTBEAT
            if (state != self._state or is_due) and self._may_send(1.0 if is_finished else 0.0):
                self._publish(state, is_update=True)
            return is_finished

    def hold(self) -> bool:
        """Send nothing until `release`; return whether the display was kept up to date."""
        if self.is_running:
            self._is_held = True
            self._stopped.set()
        return self._is_held

    def release(self) -> None:
        """Let the thread show the state in which the process ends."""
        self._released.set()

    def wait_for_last_state(self, timeout: float) -> None:
        """Wait until the thread has shown it; if it does not, show it from this thread."""
        if not self._is_over.wait(timeout):  # it waits for a broker
            self._show_end()

    def _start(self) -> None:
        self._stopped, self._is_over = threads.Event(), threads.Event()
        self._thread = threads.Thread(
            target=self._run, args=(self._stopped,), name="mousetrap-panel", daemon=True
        )
        self._thread.start()
        _started.add(self)
        at_end(EndStep.HOLD_DISPLAYS, _hold_all)
        at_end(EndStep.SHOW_LAST_STATES, _show_last_states)
        ipython_shell().events.register("post_run_cell", self._on_cell_end)

    def _run(self, stopped: threads.Event) -> None:
        measure_at = 0.0  # on the monotonic clock
        used = clock.thread_time()
        try:
            while not self.refresh():
                if clock.monotonic() >= measure_at:
                    self._content.measure()
                    measure_at = clock.monotonic() + MEASURE_INTERVAL
                idle = clock.monotonic() - self._changed_at
                interval = REFRESH_INTERVAL if idle < IDLE_AFTER else IDLE_REFRESH_INTERVAL
                used, before = clock.thread_time(), used
                needed = min((used - before) / MAX_SHARE, MAX_REFRESH_INTERVAL)
                interval = max(interval, needed)
                if stopped.wait(interval) or idle > MAX_IDLE:
                    self._show_stopped()
                    break
            # The main thread cannot send any more: as soon as Python ends, ipykernel takes it for a
            # thread that is gone, and closes its socket.
            if self._is_held and self._released.wait(HELD_TIMEOUT):
                self._show_end()
        finally:
            self._is_over.set()
            self._unregister()
            self._content.close()

    def _show_stopped(self) -> None:
        with self._lock:
            if not self._is_held:
                self._may_send(1.0)
                self._publish(self._content.poll(), is_update=True, end=STOPPED)

    def _show_end(self) -> None:
        with self._lock:
            self._publish(self._content.poll(), is_update=True, end=ENDED)
        sys.stderr.flush()  # until it is sent: what the kernel's last thread has not sent is lost

    def _on_cell_end(self, _: object) -> None:
        self.refresh()

    def _unregister(self) -> None:
        events = ipython_shell().events
        if self._on_cell_end in events.callbacks["post_run_cell"]:
            events.unregister("post_run_cell", self._on_cell_end)

    def _may_send(self, timeout: float) -> bool:
        """Wait up to *timeout* seconds until an update may be sent; return whether it may."""
        now = clock.monotonic()
        is_full = len(self._updates) == MAX_UPDATES_PER_SECOND
        due = self._updates[0] + 1.0 if is_full else now
        if due - now > timeout:
            return False
        clock.sleep(max(0.0, due - now))
        return True

    def _publish(self, state: State, *, is_update: bool, end: str = "") -> None:
        self._sent_at = clock.monotonic()
        if state != self._state or not is_update:
            self._state, self._changed_at = state, self._sent_at
        # The message names the newest cell as its parent, which is right: where cells are run one
        # by one (nbclient), only that cell's messages are read, and the id says where to put it.
        ipython_shell().display_pub.publish(
            data=self._content.render(state, end=end),
            metadata={},
            transient={"display_id": self._id},
            update=is_update,
        )
        self._updates.append(clock.monotonic())  # last: rendering takes time, and not always equal


# ---- at the end of the process -------------------------------------------------------------------

_started: WeakSet[LiveDisplay[Any]] = WeakSet()
_held: list[LiveDisplay[Any]] = []


def _hold_all() -> None:
    _held[:] = [each for each in tuple(_started) if each.hold()]


def _show_last_states() -> None:
    deadline = clock.monotonic() + LAST_STATE_TIMEOUT
    for each in _held:
        each.release()
    for each in _held:
        with suppress(Exception):  # ipykernel may have closed the output, so it cannot be reported
            each.wait_for_last_state(clock.remaining(deadline))
