"""What a person can call next on a run: its dead letters, its results, the rest of its work."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from mousetrap.display.next_calls import call_of, name_of
from mousetrap.errors import SettingsError
from mousetrap.model.ledger_progress import JobCounts
from mousetrap.settings import Settings

if TYPE_CHECKING:
    from mousetrap.errors import QueuesLost
    from mousetrap.flows.flow import Flow
    from mousetrap.model.ledger import Ledger


class HasWork(Protocol):
    """What is asked of a run."""

    flow: Flow
    ledger: Ledger
    queues_lost: QueuesLost | None

    @property
    def state(self) -> str:
        """See `mousetrap.Run`."""


def next_calls(run: HasWork, jobs: JobCounts) -> tuple[str, ...]:
    """Return the calls that help next with *run*, whose jobs are *jobs*, the most useful first.

    They work as they are, for the variable with which the notebook has the run.
    """
    name = name_of(run, "run")
    dead = [call_of("dead", name)] if jobs.dead else []
    if run.state == "closed" or run.queues_lost is not None:
        open_ones = [f"{name}.messages('open')"] if jobs.under_way else []
        return (*dead, *open_ones, f"{name}.plot()")
    if run.state == "new":
        return (f"{name}.start()",)
    if not jobs.total:
        return (f"{name}.send_many(…)",)
    if jobs.under_way:  # the call that stays is the first, so that it does not move
        return (f"{name}.settle()", *dead)
    published = run.ledger.published()
    has_results = any(published.get(queue) for queue in run.flow.results)
    return (*dead, *[f"{name}.results()"] * has_results, f"{name}.plot()")


def settings_argument(settings: Settings) -> str:
    """Return what a call needs to use *settings*: "" if these are those of the environment."""
    with suppress(SettingsError):  # the environment may have changed since
        if settings == Settings.from_environment():
            return ""
    return f", settings={name_of(settings, 'settings')}"
