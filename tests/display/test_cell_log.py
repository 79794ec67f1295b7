"""In a notebook a warning of the log is not red; an error is; a program's own logging gets both."""

from __future__ import annotations

import pytest
from support.kernel import Kernel

from mousetrap.display import cell_log

pytestmark = pytest.mark.timeout(120)

SEND = """
import logging, mousetrap
from mousetrap import stage
@stage(reads="work", retry_delays=())
def fail(n: int): raise ValueError(n)
broker = mousetrap.broker.ensure("embedded")
with fail.worker(broker.settings).start() as worker:
    mousetrap.send("work", 1, settings=broker.settings)
    worker.wait_until(dead=1)
"""


@pytest.fixture(scope="module")
def kernel():
    with Kernel() as kernel:
        yield kernel


def test_log_of_a_cell_has_errors_in_red_only(kernel):
    """Without logging of its own, then with."""
    warned = kernel.run(SEND)
    failed = kernel.run("logging.getLogger('mousetrap.worker').error('it is over')")
    kernel.run("logging.basicConfig(format='mine %(message)s')")
    own = kernel.run("logging.getLogger('mousetrap.worker').warning('careful')")

    assert "attempt 1: ValueError -> work.dead" in warned.stdout
    assert warned.stderr == ""
    assert (failed.stdout, failed.stderr) == ("", "it is over\n")
    assert (own.stdout, own.stderr) == ("", "mine careful\n")


def test_log_of_a_program_is_left_to_it():
    """Only a kernel has the handler."""
    cell_log.install_cell_log()

    assert not [each for each in cell_log._logger.handlers if isinstance(each, cell_log.CellLog)]
