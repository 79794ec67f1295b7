"""What has ended, or never began, refuses with a reason: it does not take work and leave it."""

from __future__ import annotations

import pytest
from support.messages import double

import mousetrap
from mousetrap.amqp.publisher import Publisher
from mousetrap.errors import BrokerUnreachable, ConnectionLost, RunError
from mousetrap.job_queue import declare
from mousetrap.model.message import Message
from mousetrap.settings import Settings
from mousetrap.worker.worker import Worker

NOWHERE = Settings(port=1, connect_timeout=0.3)
DOUBLE = mousetrap.stage(reads="work")(double)

MAKE = {  # how each is made, and its methods: start, use, end
    "publisher": (Publisher, "open", lambda it: it.publish(Message(1), "work"), "close"),
    "worker": (lambda settings: Worker("work", double, settings), "start", None, "stop"),
    "run": (lambda settings: mousetrap.run(DOUBLE, settings), "start",
            lambda it: it.send(1), "stop"),
}  # fmt: skip
ENDED = {
    "publisher": (ConnectionLost, "closed; make a new one"),
    "worker": (RuntimeError, "has ended: make a new one"),
    "run": (RunError, "closed: make a new one"),
}


def check_refusals(it, name, error, words):
    """It can be neither started nor used again, and to end it again is no error."""
    _, start, use, end = MAKE[name]
    with pytest.raises(error, match=words):
        getattr(it, start)()
    if use is not None:
        with pytest.raises(error, match=words):
            use(it)
    getattr(it, end)()


@pytest.mark.parametrize("name", MAKE)
def test_started_again_after_it_ended(settings, name):
    make, start, _, end = MAKE[name]
    error, words = ENDED[name]
    declare("work", settings=settings)
    it = make(settings)
    getattr(it, start)()
    getattr(it, start)()  # while it runs, nothing happens

    getattr(it, end)()

    check_refusals(it, name, error, words)


@pytest.mark.parametrize("name", MAKE)
def test_started_again_after_it_did_not_start(name):
    make, start, _, _ = MAKE[name]
    it = make(NOWHERE)
    with pytest.raises(BrokerUnreachable):
        getattr(it, start)()

    error, words = ENDED[name]
    if name == "publisher":
        error, words = BrokerUnreachable, "no broker listens"  # the same reason again
    check_refusals(it, name, error, words)


@pytest.mark.parametrize("name", ["publisher", "run"])
def test_used_before_it_starts(name):
    make, _, use, end = MAKE[name]
    it = make(NOWHERE)
    with pytest.raises((ConnectionLost, RunError), match="use it in a with block"):
        use(it)
    getattr(it, end)()
