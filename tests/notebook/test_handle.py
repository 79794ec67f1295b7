"""The handle of a background consumer: its display, its waits, its stop."""

from __future__ import annotations

import re

import pytest
from support.messages import send
from support.processes import other_process
from support.waiting import wait_for

from mousetrap import Queue, Reject, consume
from mousetrap.job_queue import depth
from mousetrap.notebook import registry


def double(n: int) -> int:
    return 2 * n


def consumers(settings, queue="work"):
    return depth(queue, settings).consumers


def test_handle_stops_at_the_end_of_its_block(settings):
    """As a context manager it stops the consumer; a second stop is no error."""
    with consume("work", double, settings) as handle:
        assert consumers(settings) == 1
    handle.stop()

    assert consumers(settings) == 0
    assert not handle.is_running
    assert handle.wait(1) is True


def test_replaced_handle_stops_nothing(settings):
    """Only the newest handle stops the consumer."""
    old = consume("work", double, settings)
    new = consume("work", double, settings)
    old.stop()

    assert new.is_running
    assert consumers(settings) == 1


def test_handle_says_how_far_it_got(settings):
    """A failed wait has the counts of this handle, not of earlier ones."""
    consume("work", double, settings)
    send(settings, 1)
    registry.handles()[0].wait_until(done=1)
    handle = consume("work", double, settings)

    with pytest.raises(TimeoutError, match=r"\{'done': 1\}; so far: .*done=0"):
        handle.wait_until(done=1, timeout=0.1)


def test_handle_counts_others_again_when_it_is_shown(settings, monkeypatch):
    """A handle asks again for other consumers when its answer is older than two seconds."""
    monkeypatch.setattr("mousetrap.notebook.handle.MAX_ATTACHED_AGE", 0.0)
    handle = consume("work", double, settings)
    with other_process(settings):
        assert "2 attached" in handle._repr_mimebundle_()["text/plain"]

    wait_for(lambda: "attached" not in handle._repr_mimebundle_()["text/plain"])


def test_handle_shows_itself_as_text_and_as_html(settings):
    """Both forms have the route, the counts and the last failure."""

    def rejects(_: object) -> None:
        print("looked at it")
        raise Reject("<b>no</b>")

    handle = consume(Queue("work", ()), rejects, settings, writes="out")
    send(settings, 1)
    handle.wait_until(dead=1)
    bundle = handle._repr_mimebundle_()

    assert re.match(r"<Handle work → rejects → out: open, v1 \(\w{6}, [\d:]+\), 0 done, 0 retried, "
                    r"1 dead, 0 in progress>", bundle["text/plain"])  # fmt: skip
    assert "last failure: Reject: <b>no</b>" in bundle["text/plain"]
    assert "Reject: &lt;b&gt;no&lt;/b&gt;" in bundle["text/html"]
    assert "looked at it" in bundle["text/html"]
    [failure] = handle.failures
    assert str(failure.output) == "looked at it\n"


def test_handle_escapes_what_it_shows(settings):
    """Names, errors and output with markup or control characters do not act."""

    def hostile(_: object) -> None:
        print("\x1b[2J\u202e<img src=x onerror=alert(1)>$x$")
        raise ValueError("\x1b]0;title\x07<script>alert(2)</script>")

    handle = consume(Queue("<i>work</i>", ()), hostile, settings)
    send(settings, 1, queue="<i>work</i>")
    handle.wait_until(dead=1)
    text, page = handle._repr_mimebundle_().values()

    for shown in (text, page, repr(handle.output()), handle.output()._repr_html_()):
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", shown)
    for shown in (page, handle.output()._repr_html_()):
        assert not re.search("<(script|img|i)[ >]", shown)
        assert "tex2jax_ignore" in shown


def test_handle_says_what_is_wrong(settings, proxy):
    """While the broker is away the handle shows it; nothing raises."""
    handle = consume("work", double, proxy.settings)
    proxy.refuse()
    proxy.cut()
    wait_for(lambda: handle.statistics().state == "connecting")

    assert "connecting" in repr(handle)
    assert handle.attached(0.1) is None
    proxy.accept()
    wait_for(lambda: handle.statistics().state == "open")
