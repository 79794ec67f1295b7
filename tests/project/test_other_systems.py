"""What differs on Windows: modules that only POSIX has, and the branches for calls it lacks.

mypy finds calls that Windows lacks: `.ci/run` calls it with ``--platform win32``. Here each branch
runs, with `sys` of the one module replaced.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from types import SimpleNamespace

import pytest
from test_architecture import FILES, name, tree

from mousetrap.broker import executables, rabbitmq_node
from mousetrap.check import descendants, kernel_sockets
from mousetrap.cli import console
from mousetrap.runs import locked_file
from mousetrap.runtime import clock, processes
from mousetrap.settings import Settings

POSIX_MODULES = {"fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty"}
# A program of its own, which runs a private node; `executables.problem` refuses that on Windows.
POSIX_PROGRAM = "broker/node_supervisor.py"


@pytest.fixture
def on_windows(monkeypatch):
    """Return a function that lets a module see Windows as its platform."""

    def replace(module):
        monkeypatch.setattr(module, "sys", SimpleNamespace(**vars(sys) | {"platform": "win32"}))

    return replace


def test_every_module_imports_without_the_modules_of_posix():
    """On Windows an import of any module of the package works."""
    names = [name(path) for path in FILES if name(path) not in (POSIX_PROGRAM, "__main__.py")]
    modules = [f"mousetrap.{each[:-3].replace('/', '.')}".removesuffix(".__init__")
               for each in names]  # fmt: skip
    program = f"""
import builtins
from importlib import import_module
real = builtins.__import__
def without_posix(name, globals=None, *rest):
    importer = (globals or {{}}).get("__name__") or ""
    if name in {POSIX_MODULES} and importer.startswith("mousetrap"):
        raise ModuleNotFoundError(f"No module named {{name!r}}, for {{importer}}")
    return real(name, globals, *rest)
builtins.__import__ = without_posix
for module in {modules}:
    import_module(module)
try:
    import_module("mousetrap.broker.node_supervisor")
except ModuleNotFoundError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          check=False, timeout=60)  # fmt: skip

    assert done.stderr == ""
    assert done.stdout.startswith("No module named 'fcntl'")


def test_only_the_private_node_uses_a_module_of_posix():
    """Whoever needs one elsewhere adds a branch for Windows, and a test here."""
    users = {
        name(path)
        for path in FILES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Import)
        and POSIX_MODULES & {alias.name.partition(".")[0] for alias in node.names}
    }

    assert users == {POSIX_PROGRAM, "broker/rabbitmq_node.py"}


def test_private_node_is_refused_on_windows(on_windows, tmp_path):
    """The reason names the way out, and no question about a node needs `fcntl`."""
    on_windows(executables)
    on_windows(rabbitmq_node)
    (tmp_path / "lock").touch()
    (tmp_path / "state.json").write_text('{"node": 1, "epmd": 1}')
    node = rabbitmq_node.RabbitMQNode(tmp_path, Settings(), detached=True)

    assert "use Docker on Windows" in str(executables.problem())
    assert not node.is_supervised
    assert node.pid is None
    assert not node.sweep()


def test_child_process_gets_a_group_of_its_own(on_windows, monkeypatch):
    """Ctrl-C does not reach it, by the way that the system has."""
    if sys.platform != "win32":
        assert processes.own_group() == {"process_group": 0}
        assert processes.own_group(session=True) == {"start_new_session": True}
    on_windows(processes)
    monkeypatch.setattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 512, raising=False)

    assert processes.own_group() == processes.own_group(session=True) == {"creationflags": 512}


def test_locked_file_is_closed_before_it_is_deleted(on_windows, tmp_path, monkeypatch):
    """Windows deletes no open file: it is emptied and closed first, and gone in the end."""
    on_windows(locked_file)
    file = locked_file.LockedFile.create(tmp_path / "one.json")
    file.write("{}\n")
    seen = []
    unlink = type(file.path).unlink

    def observed(path, **options):
        seen.append((file.is_locked, path.read_text()))
        unlink(path, **options)

    monkeypatch.setattr(type(file.path), "unlink", observed)

    file.delete()

    assert seen == [(False, "")]
    assert not file.path.exists()


def test_locked_file_that_another_process_reads_stays_empty(on_windows, tmp_path, monkeypatch):
    """If the other process has it open, Windows refuses; for a sweep the run is over."""
    on_windows(locked_file)
    file = locked_file.LockedFile.create(tmp_path / "one.json")
    file.write("{}\n")

    def refused(*_, **__):
        raise PermissionError(13, "the file is used by another process")

    monkeypatch.setattr(type(file.path), "unlink", refused)
    file.delete()

    assert not file.is_locked
    assert file.path.read_text() == ""


def test_kernel_listens_on_a_port_where_sockets_have_no_path(on_windows, tmp_path):
    """Windows gets jupyter_client's default; elsewhere the kernel's sockets are files."""
    if sys.platform != "win32":
        assert kernel_sockets.kernel_sockets(tmp_path, "python")
    on_windows(kernel_sockets)

    assert not kernel_sockets.kernel_sockets(tmp_path, "python")


def test_no_interrupt_is_sent_on_windows(on_windows, monkeypatch):
    """A check ends its processes there by `terminate` alone."""
    on_windows(descendants)
    monkeypatch.setattr(descendants.psutil, "Process", lambda *_: pytest.fail("no such signal"))

    descendants.Descendants(None, "id").interrupt_children()


def test_console_does_not_wait_for_a_pipe_on_windows(on_windows):
    """`select` takes only sockets there."""
    on_windows(console)

    assert console._file_number() is None


def test_uptime_has_a_fallback(on_windows, monkeypatch):
    """Without Linux's clock that counts sleep it is the monotonic clock."""
    on_windows(clock)
    monkeypatch.setattr(clock._time, "monotonic", lambda: 5.0)

    assert clock.uptime() == 5.0


def test_package_is_imported_where_there_is_no_fork():
    """What happens in a forked child is registered only where there is fork."""
    program = """
import asyncio, concurrent.futures, filelock, logging, os, pika, random, ssl
del os.register_at_fork
import mousetrap.amqp.redeliveries, mousetrap.runs.locked_file, mousetrap.worker.handling
from mousetrap.runtime import forks
print(forks.__name__)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          check=False, timeout=60)  # fmt: skip

    assert (done.stdout, done.stderr) == ("mousetrap.runtime.forks\n", "")
