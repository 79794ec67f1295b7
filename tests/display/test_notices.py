"""Lines for a person, on the stream where they are neither data nor an error."""

from __future__ import annotations

import pytest

from mousetrap.display import notices


@pytest.mark.parametrize(
    ("is_kernel", "out", "err"), [(True, "hello\n", ""), (False, "", "hello\n")]
)
def test_notice_is_red_nowhere_and_mixes_with_no_data(is_kernel, out, err, capsys, monkeypatch):
    """In a notebook it goes to stdout, elsewhere to stderr."""
    monkeypatch.setattr(notices, "is_kernel", lambda: is_kernel)

    notices.print_notice("hello")

    assert tuple(capsys.readouterr()) == (out, err)
