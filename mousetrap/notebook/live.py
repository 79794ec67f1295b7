"""One thing shown in cells and kept up to date there, from a thread of its own.

What was displayed with an id can be replaced later by a message that carries the id. So the thread
needs no cell: the update goes to wherever the thing is shown, and never into the newest cell.
Prototyped in ``notebooks/08_watching.ipynb``.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, Protocol, TypeVar

from mousetrap.runtime import clock, randomness, threads
from mousetrap.runtime.environment import is_kernel, shell

INTERVAL = 0.3  # seconds between two looks
QUIET_INTERVAL = 2.0  # seconds, when nothing has changed for a minute
QUIET_AFTER = 60.0  # seconds
GIVEN_UP_AFTER = 3600.0  # seconds without any change; a guess at when nobody looks any more
MEASURE_EVERY = 0.6  # seconds between two questions to the broker
UPDATES = 4  # at most so many in a second, whoever asks for them

Bundle = dict[str, str]
State = TypeVar("State")


class Picture(Protocol[State]):
    """What `Live` shows."""

    def look(self) -> State:
        """Return what is to be shown now; it compares equal as long as that is the same."""

    def draw(self, state: State, *, is_watched: bool) -> Bundle:
        """Return *state* by MIME type; *is_watched*: it will be drawn again when it changes."""

    def is_over(self, state: State) -> bool:
        """Say whether it will not change any more."""

    def measure(self) -> None:
        """Ask what takes time to answer; never called in the thread of a cell."""

    def close(self) -> None:
        """Let go of what `measure` needed."""


class Live(Generic[State]):
    """Shows *picture* in the cells where `show` is called, until it is over.

    Each cell's end brings it up to date as well: that is what the saved output shows, also where
    nobody hears what a kernel says between two cells, as under papermill. An hour without a change
    ends it, too; `show` begins anew.

    Threads: any.
    """

    def __init__(self, picture: Picture[State]) -> None:
        self._picture = picture
        self._id = randomness.new_id()
        self._lock = threads.RLock()
        self._thread: threads.Thread | None = None
        self._stopped = threads.Event()
        self._sent: deque[float] = deque(maxlen=UPDATES)  # when, on the monotonic clock
        self._shown: State | None = None
        self._changed = 0.0  # when what is shown was last another
        self._cell: object = None  # in which it was shown last

    @property
    def is_running(self) -> bool:
        """A thread keeps it up to date."""
        return self._thread is not None and self._thread.is_alive()

    def show(self) -> bool:
        """Show it in the cell that runs now; False if it is there already, or there is no cell."""
        if not is_kernel() or self._cell == (cell := shell().execution_count):
            return False
        self._cell = cell
        with self._lock:
            self._publish(state := self._picture.look(), is_update=False)
            if not self.is_running and not self._picture.is_over(state):
                self._start()
        return True

    def stop(self) -> None:
        """Show the state of now and leave it at that. Safe to call twice."""
        self._stopped.set()
        if self._thread is not None and self._thread is not threads.current_thread():
            self._thread.join(5)

    def refresh(self) -> bool:
        """Show what has changed; say whether it is over.

        Not more than `UPDATES` in a second: what comes too soon is left to the next look. The last
        state of all waits for its turn.
        """
        with self._lock:
            state = self._picture.look()
            is_over = self._picture.is_over(state)
            if state != self._shown and self._may_send(1.0 if is_over else 0.0):
                self._publish(state, is_update=True)
            return is_over

    def _start(self) -> None:
        self._stopped = threads.Event()
        self._thread = threads.Thread(
            target=self._run, args=(self._stopped,), name="mousetrap-panel", daemon=True
        )
        self._thread.start()
        shell().events.register("post_run_cell", self._after_cell)

    def _run(self, stopped: threads.Event) -> None:
        measure_at = 0.0  # on the monotonic clock
        try:
            while not self.refresh():
                if clock.monotonic() >= measure_at:
                    self._picture.measure()
                    measure_at = clock.monotonic() + MEASURE_EVERY
                quiet = clock.monotonic() - self._changed
                pause = INTERVAL if quiet < QUIET_AFTER else QUIET_INTERVAL
                if stopped.wait(pause) or quiet > GIVEN_UP_AFTER:
                    with self._lock:
                        self._may_send(1.0)
                        self._publish(self._picture.look(), is_update=True, is_watched=False)
                    break
        finally:
            self._unhook()
            self._picture.close()

    def _after_cell(self, _: object) -> None:
        self.refresh()

    def _unhook(self) -> None:
        events = shell().events
        if self._after_cell in events.callbacks["post_run_cell"]:
            events.unregister("post_run_cell", self._after_cell)

    def _may_send(self, patience: float) -> bool:
        now = clock.monotonic()
        due = self._sent[0] + 1.0 if len(self._sent) == UPDATES else now
        if due - now > patience:
            return False
        clock.sleep(max(0.0, due - now))
        return True

    def _publish(self, state: State, *, is_update: bool, is_watched: bool = True) -> None:
        self._shown, self._changed = state, clock.monotonic()
        # The message names the newest cell as its parent, which is right: where cells are run one
        # by one (nbclient), only that cell's messages are read, and the id says where to put it.
        shell().display_pub.publish(
            data=self._picture.draw(state, is_watched=is_watched),
            metadata={},
            transient={"display_id": self._id},
            update=is_update,
        )
        self._sent.append(clock.monotonic())  # last: drawing takes its time, now more, now less
