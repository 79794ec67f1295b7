"""Holds the committed outputs of the notebooks to read to what comes out when nbmake runs them."""

import pytest
from support import committed_outputs


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around mousetrap's plugin, which watches the kernel
def pytest_runtest_call(item):
    """Watch nbmake, if it runs a notebook to read."""
    if not (getattr(item, "nbmake", False) and item.path.stem[0].isdigit()):
        return (yield)
    with committed_outputs.watched(item.path):
        return (yield)
