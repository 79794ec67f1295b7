"""`mousetrap.check.progress`: the counts that a Run in a notebook writes to a file."""

from __future__ import annotations

import os

import pytest

from mousetrap.check.progress import read_stage_counts


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"open": 3, "stages": {"fetch": {"done": 1}}}',
         {"open": 3, "stages": {"fetch": {"done": 1}}}),
        ('{"open": 3}', {"open": 3, "stages": {}}),
        ('{"open": "many", "stages": {"fetch": {"done": "all", "dead": 0}, "process": 5}}',
         {"stages": {"fetch": {"dead": 0}, "process": {}}}),
        ('{"open": true, "stages": [1]}', {"stages": {}}),
        ('{"open": -1, "stages": {"fetch": {"done": 1e99}}}', {"stages": {"fetch": {}}}),
        ("[]", {}),
        ('{"open": 3', {}),
        ("", {}),
        pytest.param("[" * 50_000, {}, id="deep"),
        pytest.param('{"open": 3}' + " " * 200_000, {}, id="long"),
        ('"\udcff"', {}),
    ],
)  # fmt: skip
def test_read_stage_counts_leaves_out_values_of_another_form(tmp_path, content, expected):
    """The notebook can write anything into the file."""
    path = tmp_path / "progress.json"
    path.write_bytes(content.encode(errors="surrogateescape"))

    assert read_stage_counts(path) == expected


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes in folders")
def test_read_stage_counts_does_not_block(tmp_path):
    """A pipe, a folder, or no file at all: the result is empty at once."""
    os.mkfifo(tmp_path / "pipe")

    assert [read_stage_counts(tmp_path / name) for name in ("pipe", "", "missing")] == [{}, {}, {}]
