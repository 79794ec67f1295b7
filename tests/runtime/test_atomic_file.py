"""Files are written as a whole or not at all."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading

import pytest

from mousetrap.runtime import atomic_file
from mousetrap.runtime.atomic_file import is_replaceable, write_atomically

NULL_DEVICE = os.makedev(1, 3)  # Linux: a node of this kind swallows what is written
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
root = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root can make a device node"
)


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


def test_write_atomically_takes_content_in_parts(tmp_path):
    """The parts are written as they come; if they end in an error, the old file stays."""
    path = tmp_path / "rows.jsonl"
    write_atomically(path, (f"{n}\n".encode() for n in range(3)))

    def broken():
        yield b"half"
        assert path.read_bytes() == b"0\n1\n2\n"
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        write_atomically(path, broken())

    assert path.read_bytes() == b"0\n1\n2\n"
    assert list(tmp_path.iterdir()) == [path]


@posix
@root
def test_write_atomically_leaves_a_device_node_in_place(tmp_path):
    """A program of root's writes into the null device; it does not put a file in its place."""
    node = tmp_path / "null"
    os.mknod(node, stat.S_IFCHR | 0o666, NULL_DEVICE)

    write_atomically(node, "into nothing")

    assert stat.S_ISCHR(node.lstat().st_mode)
    assert list(tmp_path.iterdir()) == [node]


@posix
@root
def test_write_atomically_refuses_a_disk(tmp_path):
    """A block device would be overwritten from its first byte."""
    node = tmp_path / "disk"
    os.mknod(node, stat.S_IFBLK | 0o600, os.makedev(7, 250))

    with pytest.raises(OSError, match="neither a file nor a pipe"):
        write_atomically(node, "a boot sector")

    assert stat.S_ISBLK(node.lstat().st_mode)


@posix
@pytest.mark.parametrize("target", ["file", "missing"])
def test_write_atomically_keeps_a_link(tmp_path, target):
    """The file that the link names is replaced, or made."""
    link = tmp_path / "link"
    named = tmp_path / "folder" / target
    (tmp_path / "folder").mkdir()
    if target == "file":
        named.write_text("old")
    link.symlink_to(named)

    write_atomically(link, "new")

    assert link.is_symlink()
    assert named.read_text() == "new"
    assert len(list(tmp_path.rglob("*"))) == 3


@posix
@pytest.mark.parametrize("size", [5, 1_000_000])
def test_write_atomically_writes_into_a_pipe(tmp_path, size):
    """Its reader gets all of it, also more than the pipe holds at a time."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    received = bytearray()

    def read():
        with open(reader, "rb") as file:
            received.extend(file.read())

    thread = threading.Thread(target=read)
    writer = os.open(pipe, os.O_WRONLY)  # keeps it open until the thread reads
    thread.start()
    write_atomically(pipe, b"x" * size)
    os.close(writer)
    thread.join(20)

    assert len(received) == size
    assert stat.S_ISFIFO(pipe.lstat().st_mode)


@posix
def test_write_atomically_does_not_wait_for_the_reader_of_a_pipe(tmp_path, monkeypatch):
    """Without a reader it fails at once; a reader that stops reading has a limit."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    monkeypatch.setattr(atomic_file, "READER_TIMEOUT", 0.1)

    with pytest.raises(OSError, match=os.strerror(6)):  # ENXIO
        write_atomically(pipe, "x")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(TimeoutError, match=r"nothing read it for 0\.1 s"):
        write_atomically(pipe, "x" * 1_000_000)
    os.close(reader)

    assert stat.S_ISFIFO(pipe.lstat().st_mode)


@posix
def test_write_atomically_refuses_a_socket_and_a_folder(tmp_path, monkeypatch):
    """Neither can be written to, and neither is replaced."""
    monkeypatch.chdir(tmp_path)  # the path of a socket has a maximum length
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(OSError, match="neither a file nor a pipe"):
            write_atomically(tmp_path / "socket", "x")
    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path, "x")

    assert stat.S_ISSOCK((tmp_path / "socket").lstat().st_mode)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_write_atomically_writes_to_its_own_output(tmp_path):
    """A file to which the shell sent the output keeps what was printed before and afterwards."""
    program = (
        "import sys; from pathlib import Path\n"
        "from mousetrap.runtime.atomic_file import write_atomically\n"
        "print('before'); write_atomically(Path('output'), 'written\\n'); print('after')"
    )
    # not /dev/stdout itself: a wrong implementation would put a file in its place
    (tmp_path / "output").symlink_to("/proc/self/fd/1")
    with (tmp_path / "out.txt").open("w") as output:
        subprocess.run(
            [sys.executable, "-c", program], stdout=output, check=True, timeout=30, cwd=tmp_path
        )

    assert (tmp_path / "out.txt").read_text() == "before\nwritten\nafter\n"
    assert is_replaceable(tmp_path / "out.txt")
