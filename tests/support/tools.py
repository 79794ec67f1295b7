"""Skips a test, or fails it in CI, where a tool is missing."""

from __future__ import annotations

from mousetrap.pytest_plugin import missing


def needs(problem: str | None) -> None:
    """Skip, or fail in CI, if *problem* says what is missing."""
    if problem:
        missing(problem)
