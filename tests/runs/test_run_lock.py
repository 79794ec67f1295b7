"""A sweep deletes the queues of runs whose process is gone, and of no other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest
from support.messages import existing_queues

import mousetrap
from mousetrap import job_queue, stage
from mousetrap.broker import ensure
from mousetrap.errors import MousetrapError, QueueMissing, SettingsError
from mousetrap.model.topology import Declaration
from mousetrap.run_fetch_worker import fetch
from mousetrap.runs import locked_file
from mousetrap.runs.run_lock import RunLock, stale_runs, sweep
from mousetrap.runtime import clock
from mousetrap.settings import Settings


@stage(reads="numbers")
def double(n: int) -> int:
    return 2 * n


def test_run_is_stale_when_its_lock_is_free(settings, own_state):
    """A held lock means a live run; a released one a stale run; a deleted file no run at all."""
    lock = RunLock(settings.replace(namespace="run-1"), ["run-1.numbers"])
    live = stale_runs()
    lock.release()
    stale = stale_runs()
    lock.delete()  # without effect: it is not ours any more
    kept = stale_runs()
    RunLock(settings.replace(namespace="run-1"), ["run-1.numbers"]).delete()

    assert kept == stale
    assert (live, stale, stale_runs()) == ([], ["run-1"], [])
    assert list(own_state.iterdir()) == []


@pytest.mark.parametrize("names_one", ["ended with its process", "is of another user", "neither"])
def test_sweep_lists_the_runs_that_doctor_names(settings, own_state, monkeypatch, names_one):
    """Not those whose broker is gone with all its queues, and not those of another user."""
    lock = RunLock(settings.replace(namespace="run-1", port=1), ["run-1.numbers"])
    if names_one == "ended with its process":
        lock.add({"has_temporary_broker": True})
    lock.release()
    if names_one == "is of another user":
        monkeypatch.setattr(os, "getuid", lambda: 4_294_967_294)

    named = stale_runs()
    listed = sweep(settings.replace(connect_timeout=0.5))

    assert named == [each.namespace for each in listed]
    assert named == (["run-1"] if names_one == "neither" else [])
    assert any(own_state.iterdir()) == (names_one != "ended with its process")


def test_sweep_removes_a_file_that_was_not_finished(settings, own_state):
    """The process was killed while it wrote the file, so it had not declared a queue."""
    RunLock(settings.replace(namespace="run-1"), []).release()
    (own_state / "run-1.json").write_text('{"host": "loc')

    assert sweep(settings) == []
    assert list(own_state.iterdir()) == []


def test_sweep_keeps_the_file_when_the_broker_cannot_be_reached(settings, own_state):
    """The next sweep tries again; the problem is in the result."""
    unreachable = settings.replace(namespace="run-1", port=1, connect_timeout=0.5)
    RunLock(unreachable, ["run-1.numbers"]).release()

    [stale] = sweep(settings.replace(connect_timeout=0.5))

    assert stale.queues == ()
    assert "no broker listens" in stale.problem
    assert len(list(own_state.iterdir())) == 1


def test_sweep_leaves_live_runs_alone(settings, own_state):
    """A live run holds its lock; a run that ended without an error has no file."""
    with mousetrap.run(double, settings) as run:
        assert sweep(settings) == []
        assert run.settle(timeout=5).sent == 0
        assert len(list(own_state.iterdir())) == 1

    assert list(own_state.iterdir()) == []


@pytest.mark.parametrize("workers", ["threads", "processes"])
def test_sweep_deletes_the_queues_of_a_killed_run(settings, own_state, workers):
    """After SIGKILL, the sweep names the run and deletes its queues; the next one finds nothing."""
    program = f"""
        import mousetrap
        from mousetrap.run_fetch_worker import fetch
        from mousetrap.start_fetch import FetchJob
        settings = mousetrap.Settings.from_environment()
        with mousetrap.run(fetch, settings, workers={workers!r}) as run:
            run.send_many(FetchJob(n, latency=0.1) for n in range(100))
            run.ledger.wait_for(lambda: run.ledger.open < 99, 30)
            print(run.namespace, flush=True)
            run.settle(timeout=60)
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True,
        env=os.environ | settings.to_environment(),
    )  # fmt: skip
    namespace = child.stdout.readline().strip()
    os.kill(child.pid, signal.SIGKILL)
    child.wait(10)
    child.stdout.close()
    run = mousetrap.run(fetch, settings)
    run._queues._settings = run.settings.replace(namespace=namespace)
    assert existing_queues(run)

    [stale] = sweep(settings)

    assert stale.namespace == namespace
    assert stale.problem == ""
    assert f"{namespace}.start_fetch" in stale.queues
    assert str(child.pid) in stale.process
    assert existing_queues(run) == {}
    assert sweep(settings) == []


def test_empty_file_is_no_stale_run(settings, own_state):
    """A run that has made its file and not locked it yet is not dead."""
    RunLock(settings.replace(namespace="run-1"), []).delete()
    (own_state / "run-1.json").touch()

    assert stale_runs() == []


def test_sweep_keeps_an_unreachable_run_for_ever(settings, own_state, monkeypatch):
    """However long ago it expired: only the broker can say that its queues are gone."""
    unreachable = settings.replace(namespace="run-1", port=1, queue_expiry=1.0)
    RunLock(unreachable, ["run-1.numbers"]).release()
    now = clock.uptime()
    monkeypatch.setattr(clock, "uptime", lambda: now + 10_000)

    [stale] = sweep(settings.replace(connect_timeout=0.3))

    assert str(own_state / "run-1.json") in stale.problem
    assert len(list(own_state.iterdir())) == 1
    (own_state / "run-1.json").unlink()
    assert sweep(settings) == []


def test_sweep_forgets_a_run_whose_broker_ended_with_it(own_state):
    """An embedded broker keeps its queues in memory: nothing is left that could be deleted."""
    with ensure("embedded", Settings()) as broker:
        run = mousetrap.run(double, broker.settings.replace(connect_timeout=0.3)).start()
        run._queues.release()
        run._queues._lock = None
        run.stop(keep_queues=True)

    listed = sweep(run.settings)

    assert listed == []  # there is nothing to say about it
    assert list(own_state.iterdir()) == []


def test_age_of_a_run_does_not_follow_the_clock(settings, own_state, monkeypatch):
    """The system's clock is set by thirty days while the run lies there."""
    RunLock(settings.replace(namespace="run-1"), []).release()
    now = clock.time()
    monkeypatch.setattr(clock, "time", lambda: now + 30 * 86_400)

    [stale] = sweep(settings)

    assert 0 <= stale.age < 60


@pytest.mark.parametrize("state", ["/proc/none", "a file"])
def test_run_works_where_the_state_folder_cannot_be_written(
    settings, tmp_path, monkeypatch, caplog, state
):
    """It says once that a sweep will not know its runs, and names the folder and the variable."""
    if state == "a file":
        state = str(tmp_path / "file")
        (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", state)
    for n in range(2):
        with mousetrap.run(double, settings) as run:
            run.send(n)
            assert run.settle(timeout=20).done == 1
    [record] = [each for each in caplog.records if each.name == "mousetrap.runs.run_lock"]

    assert f"the state folder {state}/mousetrap/runs cannot be used" in record.message
    assert "XDG_STATE_HOME" in record.message
    assert "mousetrap sweep does not know" in record.message
    with pytest.raises(SettingsError, match="XDG_STATE_HOME"):
        sweep(settings)


def test_run_works_where_the_state_folder_has_no_locks(settings, own_state, monkeypatch, caplog):
    """No file is left that would name a run as live for ever."""

    def no_locks(*_, **__):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(locked_file, "lock_descriptor", no_locks)
    with mousetrap.run(double, settings) as run:
        run.send(1)
        assert run.settle(timeout=20).done == 1
        assert list(own_state.iterdir()) == []

    assert "No locks available" in caplog.text


@pytest.mark.parametrize("ends", ["stop", "with", "error"])
def test_forked_child_that_leaves_the_run_changes_nothing(settings, own_state, ends):
    """Workers, queues, connections and lock are the parent's: 20 jobs are done afterwards."""
    with mousetrap.run(double, settings) as run:
        child = os.fork()
        if child == 0:
            try:
                if ends == "stop":
                    run.stop()
                else:
                    run.__exit__(ValueError if ends == "error" else None)
            finally:
                os._exit(0 if run.state == "closed" else 1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        queues = existing_queues(run)
        declared = {e.name for e in run._queues.declarations() if isinstance(e, Declaration)}
        live = stale_runs()
        run.send_many(range(20))
        summary = run.settle(timeout=20)

    assert code == 0
    assert set(queues) == declared
    assert live == []
    assert (summary.done, summary.lost) == (20, 0)
    assert list(own_state.iterdir()) == []


def test_forked_child_cannot_use_the_run(settings):
    """It has no connections: the error says so, instead of a wait that does not end."""
    with mousetrap.run(double, settings) as run:
        answers, answers_in = os.pipe()
        child = os.fork()
        if child == 0:
            for action in (lambda: run.send(1), run.settle, run.results):
                try:
                    action()
                except MousetrapError as error:
                    os.write(answers_in, f"{error}\n".encode())
            os._exit(0)
        os.waitpid(child, 0)
        os.close(answers_in)
        with os.fdopen(answers) as file:
            lines = file.readlines()

    assert len(lines) == 3
    assert all(f"belongs to process {os.getpid()}" in line for line in lines)


def test_sweep_deletes_the_queues_of_a_killed_test(settings, own_state):
    """A pytest process that is killed leaves a namespace, whose queues the sweep finds."""
    program = """
        import os, time
        import mousetrap
        from mousetrap.broker import ensure
        from mousetrap.pytest_plugin.test_namespace import TestNamespace
        with TestNamespace(ensure("external"), "test") as namespace:
            mousetrap.declare("orders", mousetrap.Queue("numbers"))
            print(namespace.namespace, flush=True)
            time.sleep(60)
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True,
        env=os.environ | settings.to_environment(),
    )  # fmt: skip
    namespace = child.stdout.readline().strip()
    live = stale_runs()
    child.kill()
    child.communicate()

    [stale] = sweep(settings)

    assert live == []
    assert stale.namespace == namespace
    assert {f"{namespace}.orders", f"{namespace}.numbers"} <= set(stale.queues)
    bare = settings.replace(namespace="")
    assert job_queue.depths(stale.queues, bare) == [None] * len(stale.queues)
    assert list(own_state.iterdir()) == []


def test_sweep_deletes_the_queues_that_handlers_sent_to(settings, own_state):
    """The run did not know their names before: its file has them once they are declared."""
    program = """
        import mousetrap
        @mousetrap.stage(reads="numbers")
        def sends(n: int) -> None:
            mousetrap.send("surprise", n)
        settings = mousetrap.Settings.from_environment()
        with mousetrap.run(sends, settings) as run:
            run.send(1)
            run.settle(timeout=60)
            while "surprise" not in run._queues.results():
                pass
            print(run.namespace, flush=True)
            input()
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True,
        stdin=subprocess.PIPE, env=os.environ | settings.to_environment(),
    )  # fmt: skip
    namespace = child.stdout.readline().strip()
    child.kill()
    child.communicate()

    [stale] = sweep(settings)

    assert f"{namespace}.surprise" in stale.queues
    [left] = mousetrap.job_queue.depths(["surprise"], settings.replace(namespace=namespace))
    assert left is None


def test_sweep_deletes_the_exchanges_of_a_killed_run(settings, own_state):
    """They never expire; one to which no queue was bound would stay for ever."""
    run = settings.replace(namespace="run-1")
    name = run.topology.wire_name("orders")
    with job_queue.short_channel(settings) as channel:
        channel.exchange_declare(name, durable=True)
    RunLock(run, [], [name]).release()

    [stale] = sweep(settings)

    assert stale.problem == ""
    with pytest.raises(QueueMissing), job_queue.short_channel(settings) as channel:
        channel.exchange_declare(name, passive=True)
