"""Where the executed copy goes, if the target is no plain file; a device is never replaced."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.notebook_files import names_in, write_notebook

from mousetrap.check import check, default_output
from mousetrap.check.copy_place import is_standard_output, place_for, target_of
from mousetrap.check.grid import _prepare
from mousetrap.check.grid_points import plan_points
from mousetrap.errors import CheckError, CheckFailed

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
PASSES, FAILS = ("1",), ("1 / 0",)
COPY = '{"cells": []}'


@pytest.fixture
def pipe(tmp_path):
    """A pipe without a reader."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def read_in_thread(path):
    """Start to read *path*; return a function that returns the text."""
    texts = []
    thread = threading.Thread(target=lambda: texts.append(path.read_text()), daemon=True)
    thread.start()

    def result():
        thread.join(30)
        return texts[0]

    return result


@pytest.mark.parametrize("cells", [PASSES, FAILS], ids=["passes", "fails"])
def test_check_writes_the_copy_into_a_pipe(tmp_path, pipe, cells):
    """Its reader gets the whole notebook at the end, also that of a run that failed."""
    notebook = write_notebook(tmp_path / "a.ipynb", *cells)
    received = read_in_thread(pipe)

    if cells == PASSES:
        result = check(notebook, output=pipe)
        assert result.passed
        assert (result.output, result.cells) == (pipe, 1)
    else:
        with pytest.raises(CheckFailed, match=f"1 / 0(?s:.)*Executed copy: {pipe}") as caught:
            check(notebook, output=pipe)
        assert caught.value.output is None  # it cannot be read again

    copy = json.loads(received())
    assert copy["cells"][-1]["source"] == [cells[0]]
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert names_in(tmp_path) == ["a.ipynb", "pipe"]


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root")
def test_place_for_leaves_a_device_node_in_place(tmp_path):
    """Root's check of a notebook with the null device as output does not replace the device."""
    node = tmp_path / "null"
    os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    notebook = write_notebook(tmp_path / "a.ipynb", "1")

    with place_for(target_of(notebook, node), notebook) as place:
        place.write_text(COPY)
        assert place.parent != tmp_path

    assert stat.S_ISCHR(node.lstat().st_mode)
    assert names_in(tmp_path) == ["a.ipynb", "null"]


def test_place_for_follows_a_link(tmp_path):
    """The link stays; the copy is in the file that it names."""
    (tmp_path / "folder").mkdir()
    link = tmp_path / "link.ipynb"
    link.symlink_to(tmp_path / "folder" / "copy.ipynb")

    with place_for(link, tmp_path / "a.ipynb") as place:
        place.write_text(COPY)

    assert place == tmp_path / "folder" / "copy.ipynb"
    assert link.is_symlink()


def test_place_for_keeps_a_copy_that_it_cannot_send(tmp_path, pipe):
    """Nothing reads the pipe: the error says where the copy is."""
    notebook = write_notebook(tmp_path / "a.ipynb", "1")

    with pytest.raises(CheckError, match=r"cannot be written to .*pipe: .*It is in ") as caught:
        make_copy(pipe, notebook)

    assert str(default_output(notebook)) in str(caught.value)
    assert default_output(notebook).read_text() == COPY


def test_place_for_lets_the_error_of_the_run_through(tmp_path, pipe):
    """The error of a run is more than that of its copy."""
    notebook = write_notebook(tmp_path / "a.ipynb", "1")

    with pytest.raises(KeyboardInterrupt):
        make_copy(pipe, notebook, KeyboardInterrupt())

    assert default_output(notebook).exists()


def make_copy(target, notebook, error=None):
    with place_for(target, notebook) as place:
        place.write_text(COPY)
        if error is not None:
            raise error


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_has_several_names(name):
    """All of them are written to as ``-`` is."""
    assert is_standard_output(name)
    assert is_standard_output(Path(name))
    assert not is_standard_output(None)


def test_check_command_writes_the_copy_to_standard_output(tmp_path):
    """Standard output is the notebook and nothing else; the verdict is on standard error."""
    notebook = write_notebook(tmp_path / "a.ipynb", "40 + 2")

    done = subprocess.run(
        [sys.executable, "-m", "mousetrap", "check", str(notebook), "--output", "-"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    copy = json.loads(done.stdout)
    assert copy["cells"][-1]["outputs"][0]["data"]["text/plain"] in ("42", ["42"])
    assert "passed: " in done.stderr
    assert names_in(tmp_path) == ["a.ipynb"]


def test_check_command_refuses_two_texts_on_standard_output(tmp_path):
    """The JSON of the result and the notebook cannot both be there."""
    notebook = write_notebook(tmp_path / "a.ipynb", "1")

    done = subprocess.run(
        [sys.executable, "-m", "mousetrap", "check", str(notebook), "--output", "-", "--json"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == 2
    assert "both write to standard output" in done.stderr


def test_grid_leaves_a_pipe_in_its_folder(tmp_path, pipe):
    """The files of an earlier grid are deleted, and nothing else."""
    points = plan_points([write_notebook(tmp_path / "a.ipynb", "1")], {}, {}, "")
    folder = tmp_path / "report"
    folder.mkdir()
    os.mkfifo(folder / points[0].file)
    (folder / "results.json").write_text("old")
    (folder / "index.html").symlink_to(tmp_path / "elsewhere.html")
    (tmp_path / "elsewhere.html").write_text("old")

    _prepare(folder, points)

    assert stat.S_ISFIFO((folder / points[0].file).lstat().st_mode)
    assert not (folder / "results.json").exists()
    assert (folder / "index.html").is_symlink()
    assert not Path(tmp_path / "elsewhere.html").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="links need a permission there")
@pytest.mark.parametrize("name", ["circle", "a\0b", "\ud800"])
def test_a_path_that_can_never_be_a_file_is_refused(tmp_path, name):
    """Links in a circle, and names that no file system takes: an error of a check."""
    (tmp_path / "circle").symlink_to(tmp_path / "circle")

    with pytest.raises(CheckError, match=r"output .* cannot be used"):
        target_of(tmp_path / "a.ipynb", tmp_path / name)
