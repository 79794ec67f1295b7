"""Files are written as a whole or not at all."""

from __future__ import annotations

import stat
import sys

import pytest

from mousetrap.runtime.atomic_file import write_atomically


def test_write_atomically_replaces_a_file(tmp_path):
    """Text is written as UTF-8, bytes unchanged; no other file is left behind."""
    path = tmp_path / "report.json"

    for content, expected in (("Grüße", "Grüße".encode()), (b"\xff", b"\xff")):
        write_atomically(path, content)

        assert path.read_bytes() == expected
        assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions")
def test_write_atomically_gives_access_to_the_owner_only(tmp_path):
    """A report can contain what its owner alone may read."""
    write_atomically(tmp_path / "report.json", "{}")

    assert stat.S_IMODE((tmp_path / "report.json").stat().st_mode) == 0o600


def test_write_atomically_keeps_the_old_file_when_it_fails(tmp_path, monkeypatch):
    """A disk that is full leaves the old content and no half-written file."""
    path = tmp_path / "report.json"
    write_atomically(path, "old")

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OSError, match="no space left"):
        write_atomically(path, "new")

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
