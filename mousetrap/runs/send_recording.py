"""Sends the jobs of a recording again, at once or at the recorded intervals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mousetrap.amqp.receipt import Receipt
from mousetrap.errors import SettingsError
from mousetrap.flows.recording import Recording
from mousetrap.model.message import Message
from mousetrap.runtime import clock


def send_recording(
    send_many: Callable[[list[Any], str], list[Receipt]], recording: Recording, speed: float | None
) -> list[Receipt]:
    """Send the jobs of *recording* by *send_many*; see `Run.send_recording`."""
    jobs = recording.jobs
    if missing := sum(job.body is None for job in jobs):
        raise SettingsError(
            f"{missing:,} of {len(jobs):,} bodies were not kept: record the run again, with "
            f"keep_bodies=100_000"
        )
    started = clock.monotonic()
    receipts: list[Receipt] = []
    try:
        for job in jobs:
            if speed is not None:
                clock.sleep(max(0.0, started + job.at / speed - clock.monotonic()))
            receipts += send_many([Message(body=job.body, id=job.id)], job.queue)
    except BaseException as error:
        vars(error)["receipts"] = [*receipts, *getattr(error, "receipts", ())]
        raise
    return receipts
