"""Exit codes of worker processes: what they mean."""

from __future__ import annotations

import pytest

from mousetrap.runtime.exit_codes import classify, describe


@pytest.mark.parametrize(
    ("code", "has_worked", "has_failed", "cause"),
    [
        (2, False, False, "misconfigured"), (2, True, False, "died"),
        (4, False, False, "misconfigured"), (4, True, True, "misconfigured"),
        (5, True, True, "misconfigured"), (5, True, False, "died"),
        (3, False, False, "no broker"), (3, True, False, "died"),
        (1, True, True, "died"), (0, True, False, "died"), (-9, True, False, "died"),
        (130, False, False, "died"), (255, False, False, "died"),
    ],
)  # fmt: skip
def test_classify_trusts_a_code_only_when_it_can_be_ours(code, has_worked, has_failed, cause):
    """A handler may exit with any code; a configuration error occurs at certain times only."""
    assert classify(code, has_worked=has_worked, has_failed=has_failed) == cause


def test_describe_names_the_signal():
    """``-11`` is described as SIGSEGV; a real-time signal has a number only."""
    assert describe(7) == "ended with exit code 7"
    assert describe(-11) == "ended with exit code -11 (SIGSEGV)"
    assert describe(-40) == "ended with exit code -40 (signal 40)"
