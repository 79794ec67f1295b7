"""A locked file says whether its process lives, whatever lists, sweeps and forks beside it."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from support.waiting import wait_for

from mousetrap.errors import RunError
from mousetrap.runs import locked_file
from mousetrap.runs.locked_file import LockedFile


@pytest.fixture
def path(tmp_path):
    return tmp_path / "one.json"


def in_fork(action):
    """Call *action* in a forked child and return its exit code."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_create_waits_for_a_lock_that_another_has_for_a_moment(path):
    """Who lists the files locks each one for a moment; the new file is locked when that is over."""
    path.touch()
    lister = LockedFile.try_open(path)
    threading.Timer(0.3, lister.release).start()

    created = LockedFile.create(path)

    assert LockedFile.try_open(path) is None
    created.delete()


def test_create_fails_when_the_lock_stays_with_another(path, monkeypatch):
    """It does not go on without a lock: the error names the file and says what to do."""
    monkeypatch.setattr(locked_file, "LOCK_TIMEOUT", 0.1)
    first = LockedFile.create(path)

    with pytest.raises(RunError, match=r"one\.json is locked by another process"):
        LockedFile.create(path)
    first.delete()


def test_create_makes_the_file_again_when_a_sweep_deletes_it(path):
    """A lock on a file that has no name any more would be seen by nobody."""
    path.touch()
    sweep = LockedFile.try_open(path)
    threading.Timer(0.2, sweep.delete).start()

    created = LockedFile.create(path)
    created.write("new")

    assert path.read_text() == "new"
    assert LockedFile.try_open(path) is None
    created.delete()


def test_delete_leaves_a_file_that_another_process_made_in_its_place(path):
    """It deletes what it has locked, not what has the same name."""
    first = LockedFile.create(path)
    path.unlink()
    path.write_text("another's")

    first.delete()

    assert path.read_text() == "another's"


def test_forked_child_neither_releases_nor_deletes(path):
    """The file is the parent's: after all that a child can do it is locked as before."""
    file = LockedFile.create(path)

    for action in (file.release, file.delete, lambda: None):
        assert in_fork(action) == 0

    assert path.exists()
    assert LockedFile.try_open(path) is None
    file.delete()


def test_lock_ends_with_its_process_though_a_forked_child_lives_on(path):
    """An inherited lock would make a dead process look alive."""
    pids, pids_in = os.pipe()
    parent = os.fork()
    if parent == 0:
        LockedFile.create(path)
        if (child := os.fork()) == 0:
            signal.pause()
        os.write(pids_in, b"%d\n" % child)
        signal.pause()
    child = int(os.read(pids, 100))
    try:
        assert LockedFile.try_open(path) is None
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)

        # the child closes its copy when it first runs
        found = wait_for(lambda: LockedFile.try_open(path), 10)

        found.delete()
    finally:
        os.kill(child, signal.SIGKILL)
        os.close(pids)
        os.close(pids_in)


def test_try_open_takes_a_process_for_live_where_there_are_no_locks(path, monkeypatch):
    """Some network file systems have none: what cannot be known must not be deleted."""
    path.write_text("a run")

    def no_locks(*_, **__):
        raise OSError("no locks available")

    monkeypatch.setattr(locked_file, "lock_descriptor", no_locks)

    assert LockedFile.try_open(path) is None
    with pytest.raises(OSError, match="no locks available"):
        LockedFile.create(path)
