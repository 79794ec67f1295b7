"""Submits many receipts in batches, so that an interrupt or an error leaves none unknown."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from mousetrap.amqp.publish_window import PublishWindow
from mousetrap.amqp.receipt import Receipt
from mousetrap.errors import MousetrapError
from mousetrap.runtime.interrupt import interrupts_postponed


def submit_all(
    made: Iterable[Receipt],
    window: PublishWindow,
    batch_size: int,
    on_submitted: Callable[[list[Receipt]], object],
) -> list[Receipt]:
    """Submit the receipts of *made* to *window*, *batch_size* at a time, and return them.

    See `Publisher.publish_many`, also for what is raised.
    """
    receipts, batch = list[Receipt](), list[Receipt]()

    def submit() -> None:
        with interrupts_postponed():  # a receipt is submitted and in the list, or neither
            submitted = batch[:]
            batch.clear()  # first: whatever raises, these are not submitted a second time
            window.submit(submitted)
            receipts.extend(submitted)
            on_submitted(submitted)

    def wait_and_submit() -> None:
        try:
            window.wait_for_room(batch[0].deadline)
            submit()
        except MousetrapError:  # these messages cannot be sent now
            batch.clear()
            raise

    try:
        for receipt in made:
            batch.append(receipt)
            if len(batch) >= batch_size:
                wait_and_submit()
        if batch:
            wait_and_submit()
    except BaseException as error:
        if batch:
            with suppress(MousetrapError):  # the publisher is closed: *error* explains more
                submit()
        vars(error)["receipts"] = receipts
        raise
    return receipts
