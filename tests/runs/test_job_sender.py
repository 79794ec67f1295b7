"""The job sender records each job, and sends it again until the broker has confirmed it."""

from __future__ import annotations

import pytest
from support.waiting import wait_for

from mousetrap.errors import MousetrapError, Unroutable
from mousetrap.job_queue import declare, drain
from mousetrap.model.ledger import Ledger
from mousetrap.model.message import Message
from mousetrap.runs.job_sender import JobSender


@pytest.fixture
def ledger():
    return Ledger(["numbers"])


@pytest.fixture
def sender(settings, ledger):
    """Return a job sender that keeps bodies of up to two bytes."""
    sender = JobSender(settings.replace(keep_bodies=2), ledger)
    sender.publisher.open()
    yield sender
    sender.publisher.close(1.0)


def test_send_many_records_the_jobs_in_the_ledger(settings, sender, ledger):
    """Each job has an entry, with its body if it is small enough, and becomes confirmed."""
    declare("numbers", settings=settings)

    receipts = sender.send_many([7, Message("long", id="a")], "numbers")
    sender.wait(10)

    wait_for(lambda: all(entry.is_confirmed for entry in ledger.entries()))
    assert [receipt.confirmed for receipt in receipts] == [True, True]
    assert sender.unconfirmed() == []
    bodies = {entry.id: entry.body for entry in ledger.entries()}
    assert bodies == {receipts[0].message.id: b"7", "a": None}
    assert [message.data for message in drain("numbers", settings=settings)] == [7, "long"]


def test_send_again_raises_when_the_queue_does_not_exist(sender):
    """The broker returned the job; sending it again would not help."""
    sender.send_many([1], "numbers")
    sender.wait(10)

    [receipt] = sender.unconfirmed()
    assert receipt.state == "returned"
    with pytest.raises(Unroutable):
        sender.send_again()


def test_send_again_sends_jobs_whose_confirms_were_lost(proxy, ledger):
    """After a cut connection the jobs are sent again with their ids until all are confirmed."""
    declare("numbers", settings=proxy.settings)
    sender = JobSender(proxy.settings, ledger)
    sender.publisher.open()
    receipts = sender.send_many(range(500), "numbers")
    proxy.cut()

    def is_confirmed():
        sender.send_again()
        return not sender.unconfirmed()

    wait_for(is_confirmed)

    sender.publisher.close(1.0)
    found = {message.id for message in drain("numbers", settings=proxy.settings)}
    assert found == {receipt.message.id for receipt in receipts}


class Interrupted(BaseException):
    """Raised by an iterator; no `Exception`, like KeyboardInterrupt."""


def raises_at(number, error):
    yield from range(number)
    raise error


JOBS_THAT_END_EARLY = {
    "an error": lambda n: raises_at(n, LookupError("no more rows")),
    "an interrupt": lambda n: raises_at(n, Interrupted()),
    "an error of ours": lambda n: raises_at(n, Unroutable("of another queue")),
    "a value that is not JSON": lambda n: [*range(n), object(), 5],
    "a number that is not finite": lambda n: [*range(n), float("nan"), 5],
}


@pytest.mark.parametrize("number", [0, 1, 255, 256, 600])
@pytest.mark.parametrize("jobs", JOBS_THAT_END_EARLY.values(), ids=JOBS_THAT_END_EARLY)
def test_send_many_records_what_it_sent_before_an_error(settings, sender, ledger, jobs, number):
    """Receipts of the exception, entries of the ledger and messages in the queue are the same."""
    declare("numbers", settings=settings)

    with pytest.raises(BaseException) as raised:
        sender.send_many(jobs(number), "numbers")
    sender.wait(10)

    assert len(raised.value.receipts) == number
    assert all(receipt.confirmed for receipt in raised.value.receipts)
    ids = {receipt.message.id for receipt in raised.value.receipts}
    assert {entry.id for entry in ledger.entries()} == ids
    assert {message.id for message in drain("numbers", settings=settings)} == ids
    assert sender.unconfirmed() == []


def test_send_many_records_nothing_that_a_closed_publisher_refused(sender, ledger):
    """A publisher that was closed sends nothing: the ledger has no entry, the error no receipt."""
    sender.publisher.close(1.0)

    with pytest.raises(MousetrapError) as raised:
        sender.send_many(range(600), "numbers")

    assert (raised.value.receipts, ledger.entries()) == ([], [])
