"""Publishing messages again until the broker has confirmed each of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from mousetrap.amqp.receipt import Receipt
from mousetrap.runtime import clock

RESEND_DELAY = 1.0  # seconds before a message that was not confirmed is published again


def confirm_all(
    receipts: list[Receipt],
    timeout: float,
    *,
    flush: Callable[[float], None],
    send_again: Callable[[Receipt], Receipt],
) -> list[Receipt]:
    """Return the *receipts*, or those of copies with the same ids, when all are confirmed.

    *flush* waits until each receipt is settled. See `Publisher.publish_until_confirmed`, also for
    the errors that are raised; ``receipts`` of each has the *receipts*.
    """
    receipts = list(receipts)
    try:
        _confirm(receipts, timeout, flush, send_again)
    except BaseException as error:
        vars(error)["receipts"] = receipts
        raise
    return receipts


def _confirm(
    receipts: list[Receipt],
    timeout: float,
    flush: Callable[[float], None],
    send_again: Callable[[Receipt], Receipt],
) -> None:
    """Replace receipts by those of copies until all are confirmed."""
    deadline = clock.monotonic() + timeout
    while True:
        with suppress(TimeoutError):  # receipts that still wait then are counted below
            flush(clock.remaining(deadline))
        missing = [n for n, receipt in enumerate(receipts) if not receipt.confirmed]
        if not missing:
            return
        first = receipts[missing[0]]
        for receipt in (receipts[n] for n in missing):
            if receipt.error and (receipt.state == "returned" or receipt.is_final):
                raise receipt.error
        if not clock.remaining(deadline):
            raise TimeoutError(
                f"{len(missing):,} of {len(receipts):,} messages are not confirmed after "
                f"{timeout:g} s; the first one is {first.state} ({first.reason})"
            )
        # The cause needs time to go away; one try a second puts no load on the broker.
        clock.sleep(min(RESEND_DELAY, clock.remaining(deadline)))
        for n in missing:
            receipts[n] = send_again(receipts[n])
