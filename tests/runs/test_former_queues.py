"""Messages in queues that a stage used before are found, on this machine, by the names it used."""

from __future__ import annotations

import uuid

import pytest
from support.messages import send

from mousetrap import job_queue
from mousetrap.runs.former_queues import leftovers, remember, renames
from mousetrap.runtime import clock


@pytest.fixture
def lasting(settings):
    """Settings without a namespace, so without expiry, and a prefix for the names of this test."""
    prefix = f"test-{uuid.uuid4().hex[:10]}"
    yield settings.replace(namespace="", queues_expire=False), prefix
    names = [f"{prefix}-{each}" for each in ("in", "old", "new")]
    job_queue.delete(*names, settings=settings.replace(namespace=""))


def test_messages_in_a_former_queue_are_found(lasting, own_state):
    """Until they are taken out, or another stage uses the queue."""
    settings, prefix = lasting
    send(settings, *range(3), queue=f"{prefix}-old")
    remember(settings, "parse", [f"{prefix}-in", f"{prefix}-old"])
    before = leftovers(settings)
    remember(settings, "parse", [f"{prefix}-in", f"{prefix}-new"])
    [found] = leftovers(settings)
    remember(settings, "score", [f"{prefix}-old"])
    in_use = leftovers(settings)
    remember(settings, "score", [f"{prefix}-new"])
    job_queue.purge(f"{prefix}-old", settings)

    assert (before, in_use, leftovers(settings)) == ([], [], [])
    assert (found.queue, found.messages, found.stage) == (f"{prefix}-old", 3, "parse")


def test_stages_of_other_brokers_and_namespaces_are_not_mixed_up(lasting, own_state):
    """A queue of the same name elsewhere is another queue."""
    settings, prefix = lasting
    send(settings, 1, queue=f"{prefix}-old")
    for elsewhere in (settings.replace(vhost="/other"), settings.replace(port=1)):
        remember(elsewhere, "parse", [f"{prefix}-old"])
        remember(elsewhere, "parse", [f"{prefix}-new"])

    assert leftovers(settings) == []


def test_queues_are_not_remembered_where_nothing_can_be_written(lasting, monkeypatch):
    """The worker works all the same."""
    settings, prefix = lasting
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/none")
    remember(settings, "parse", [f"{prefix}-old"])

    assert leftovers(settings) == []


def test_stage_that_took_the_place_of_another_is_named_for_a_week(lasting, own_state, monkeypatch):
    """Perhaps its function was renamed; of two that start at their first deploy, one may be."""
    settings, prefix = lasting
    queue = f"{prefix}-in"
    remember(settings, "parse", [queue], queue)
    remember(settings, "score", [f"{prefix}-old", queue], f"{prefix}-old")
    before = renames(settings)
    remember(settings, "parse_line", [queue], queue)
    remember(settings, "parse_line", [queue], queue)
    [found] = renames(settings)
    now = clock.time()
    monkeypatch.setattr(clock, "time", lambda: now + 8 * 86_400)

    assert (before, renames(settings)) == ([], [])
    assert (found.queue, found.stage, found.before) == (queue, "parse_line", ("parse",))
    assert "keep the identity: stage(name='parse')" in str(found)


def test_stage_that_has_its_old_name_back_is_named_no_more(lasting, own_state):
    """The advice was followed; a start under the new name is a rename again."""
    settings, prefix = lasting
    queue = f"{prefix}-in"
    found = []
    for stage in ("parse", "parse_line", "parse", "parse_line"):
        remember(settings, stage, [queue], queue)
        found.append([(each.stage, each.before) for each in renames(settings)])

    renamed = [("parse_line", ("parse",))]
    assert found == [[], renamed, [], renamed]


def test_broken_file_is_passed_over(lasting, own_state):
    """Another program wrote it, or a disk was full."""
    settings, prefix = lasting
    remember(settings, "parse", [f"{prefix}-old"])
    for content in ("{", "[]", ""):
        [path] = (own_state.parent / "stages").iterdir()
        path.write_text(content)
        assert leftovers(settings) == []


def test_queues_of_runs_are_not_remembered(lasting, own_state):
    """They are deleted at the end of the run, and no other run has their names."""
    settings, prefix = lasting
    remember(settings.replace(queues_expire=True), "parse", [f"{prefix}-old"])

    assert not (own_state.parent / "stages").exists()
