"""Fixtures for the tests of brokers: an environment without a broker, a private node, a PATH."""

from __future__ import annotations

import os

import pytest
from rig.brokers import compose_project
from support.tools import needs

from mousetrap import broker as brokers
from mousetrap.broker import executables
from mousetrap.settings import Settings


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """No broker is named, and state is written to a folder of this test."""
    for name in list(os.environ):
        if name.startswith(("RABBITMQ_", "MOUSETRAP_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("MOUSETRAP_COMPOSE_PROJECT", compose_project())


@pytest.fixture
def logged():
    """The logged lines; its `append` is the *log* to pass."""
    return []


@pytest.fixture(scope="package")
def private():
    """A private node for the tests that leave it running."""
    needs(executables.problem())
    with brokers.ensure("local", Settings(password="p#s'\"w")) as broker:
        yield broker


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A PATH with only the programs that the test puts there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setattr(executables, "EXTRA_FOLDERS", ())
    monkeypatch.setattr(executables.sys, "executable", str(folder / "python"))
    monkeypatch.setenv("PATH", str(folder))

    def put(name, script="exit 0"):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return put
