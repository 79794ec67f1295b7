"""Fixtures for the tests of commands: run one in this process, or start one in another."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from mousetrap.cli import app

SLOW_STAGE = """
import threading
from mousetrap import stage

@stage(reads="work", writes="out")
def wait(seconds: float) -> float:
    "Wait."
    threading.Event().wait(seconds)
    return seconds

@stage(reads="work", retry_delays=(0.05,))
def fail(n: int) -> None:
    raise KeyError(n) if n == 3 else ValueError(n)

def double(n: int) -> int:
    print("doubling")
    return 2 * n
"""


@pytest.fixture
def run(settings):
    """Run a command in this process and return its result."""
    runner = CliRunner()

    def run(*arguments, input=None, **environment):
        return runner.invoke(
            app, [str(each) for each in arguments], input=input,
            env=settings.to_environment() | {"MOUSETRAP_BROKER": "external"} | environment,
        )  # fmt: skip

    return run


@pytest.fixture
def start(settings, tmp_path):
    """Start a command in a process of its own, which ends with the test."""
    (tmp_path / "flow.py").write_text(SLOW_STAGE)
    running = []

    def start(
        *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        **environment,
    ):  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, "-m", "mousetrap", *arguments], cwd=tmp_path,
            env=os.environ | settings.to_environment() | environment,
            stdin=stdin, stdout=stdout, stderr=stderr, text=True,
        )  # fmt: skip
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.wait(10)
