"""A flow knows which queues connect its stages."""

from __future__ import annotations

import pytest

import mousetrap
from mousetrap import stage
from mousetrap.errors import SettingsError
from mousetrap.flows.flow import Flow, reference
from mousetrap.run_fetch_worker import fetch
from mousetrap.run_processing_worker import process


def one(name, reads, writes=None):
    def function(n: int) -> int:
        return n

    function.__name__ = name
    return stage(reads, writes)(function)


def test_flow_knows_its_entry_and_result_queues():
    """No stage writes an entry queue, and no stage reads a result queue."""
    flow = Flow([process, fetch])

    assert (flow.entries, flow.results) == (["start_fetch"], ["results"])
    assert flow.entry() == "start_fetch"
    assert Flow(flow).stages == flow.stages
    assert Flow(fetch).stages == [fetch]


def test_flow_in_a_circle_has_no_entry():
    """The caller has to say which queue to send to."""
    with pytest.warns(UserWarning, match="round for ever"):
        flow = Flow([one("there", "a", "b"), one("back", "b", "a")])

    with pytest.raises(SettingsError, match=r"say which queue to send to \(to=...\): one of a, b"):
        flow.entry()


def test_reference_names_a_stage_for_other_processes():
    """The reference is the module and the attribute to import."""
    assert reference(fetch) == "mousetrap.run_fetch_worker:fetch"


@pytest.mark.parametrize("among", [[], [one("other", "b", "c")]])
def test_flow_refuses_two_stages_that_read_one_queue(among):
    """RabbitMQ gives each message to one reader; the error says what fan-out needs."""
    with pytest.raises(SettingsError, match=r"left and right read the same queue 'a'.* fan-out"):
        Flow([one("left", "a", "x"), *among, one("right", "a", "y")])


def test_run_refuses_two_stages_that_read_one_queue(settings):
    """Before anything is declared."""
    with pytest.raises(SettingsError, match="fan-out"):
        mousetrap.run([one("left", "a"), one("right", "a")], settings)
