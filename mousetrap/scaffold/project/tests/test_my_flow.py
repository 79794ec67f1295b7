"""The functions as they are, and the flow on a broker."""

import pytest
from mousetrap import Reject

from my_flow import flow
from my_flow.converting import Report, convert
from my_flow.parsing import Reading, parse


def test_parse_reads_city_and_temperature():
    """A stage is called like the function that it is; that needs no broker."""
    assert parse("Oslo, 3.5") == Reading("Oslo", 3.5)


@pytest.mark.parametrize("row", ["", "Oslo", "Oslo, unknown"])
def test_parse_rejects_a_row_without_a_number(row):
    """`Reject` means: no second attempt."""
    with pytest.raises(Reject):
        parse(row)


def test_convert_adds_fahrenheit():
    """Freezing and boiling."""
    assert convert(Reading("Oslo", 0.0)) == Report("Oslo", 0.0, 32.0)
    assert convert(Reading("Cairo", 100.0)) == Report("Cairo", 100.0, 212.0)


def test_flow_accounts_for_every_row(run):
    """`run` is a fixture of mousetrap: the flow gets queues of its own, for this test alone."""
    started = run(flow)
    started.send_many(["Oslo, 0", "Lima, unknown"])

    summary = started.settle(timeout=30)

    assert (summary.done, summary.dead) == (1, 1)
    [report] = started.results()
    assert report.data == {"city": "Oslo", "celsius": 0.0, "fahrenheit": 32.0}
