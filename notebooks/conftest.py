"""With a notebook to read run the solutions of its exercises: see `support.committed_outputs`."""

import pytest
from support import committed_outputs


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around mousetrap's plugin, which watches the kernel
def pytest_runtest_call(item):
    """Watch nbmake, if it runs a notebook to read."""
    if not (getattr(item, "nbmake", False) and item.path.stem[0].isdigit()):
        return (yield)
    with committed_outputs.watched():
        return (yield)
