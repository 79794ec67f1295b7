"""Fixtures of the sink tests: a PostgreSQL server, and a place for a sink in each database."""

from __future__ import annotations

import pytest
from support.postgres import Postgres

from mousetrap import Sink


@pytest.fixture(scope="package")
def postgres():
    """Start a PostgreSQL server for these tests."""
    with Postgres() as postgres:
        yield postgres


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, tmp_path):
    """Return a path for an SQLite file, or the URL of a new PostgreSQL database."""
    if request.param == "sqlite":
        return str(tmp_path / "results.db")
    return request.getfixturevalue("postgres").url()


@pytest.fixture
def sink(place):
    with Sink(place) as sink:
        yield sink
