"""Fixtures for the tests of notebook/."""

from __future__ import annotations

import pytest

from mousetrap.notebook import registry


@pytest.fixture(autouse=True)
def no_consumers():
    """Stop what a test leaves running."""
    yield
    for handle in registry.handles():
        handle.stop()
    assert registry.handles() == []
