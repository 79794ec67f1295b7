"""A full disk: that of the broker, and the one to which executed notebooks are saved."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading

import nbformat
import pytest
from rig import work_stage
from rig.brokers import Container, has_image, requested_version
from rig.trial import Trial, seconds_until_result, trial_counts
from support.waiting import wait_for

from mousetrap.broker import docker
from mousetrap.check import read
from mousetrap.model.topology import Queue
from mousetrap.pytest_plugin import missing

WORK = Queue("work", work_stage.DELAYS)
BROKER_DISK_SIZE = 120  # MiB
FILLER = "/var/lib/rabbitmq/filler"
FILL = ("dd", "if=/dev/zero", f"of={FILLER}", "bs=1M", f"count={BROKER_DISK_SIZE - 40}")
BLOCKED = "sender is blocked: the broker is low on disk"
DISK_SIZE = 64  # KiB
PRINTS = "for n in range(lines):\n    print(f'{n:100}')"


@pytest.fixture
def small(tmp_path):
    """Run a command that has the folder ``small`` on a disk of `DISK_SIZE`.

    Returns the completed process and a copy of the folder. The disk is mounted in a namespace of
    the command's own, so it needs no unmount.
    """
    folder, left = tmp_path / "small", tmp_path / "left"
    folder.mkdir()
    script = (
        f"mount -t tmpfs -o size={DISK_SIZE}k none small || exit 99\n"
        '"$@"; code=$?\n'
        "rm -rf left; cp -a small left; exit $code"
    )

    def run(*command):
        done = subprocess.run(
            ["unshare", "-rm", "sh", "-c", script, "sh", *map(str, command)],
            capture_output=True, text=True, cwd=tmp_path, timeout=100,
        )  # fmt: skip
        return done, left

    if not shutil.which("unshare") or run("true")[0].returncode:
        missing("no namespace in which a small disk could be mounted")
    return run


@pytest.fixture
def rabbit():
    """A broker with a small disk, in place of the `rabbit` that the other tests share."""
    if problem := docker.problem():
        missing(f"a broker with a small disk is a container: {problem}")
    if not has_image(requested_version()):
        missing(f"no image of RabbitMQ {requested_version()}")
    container = Container(requested_version(), disk_size=BROKER_DISK_SIZE)
    try:
        container.start()
        yield container
    finally:
        container.close()


@pytest.mark.fault("F18")
@trial_counts(1, 10)
def test_broker_disk_full(rabbit_settings, rabbit, fault_row, caplog, times):
    """The disk of the broker fills under load: the worker reports it, and recovers.

    Below its `disk_free_limit` RabbitMQ accepts no messages. Without that limit, at the last byte,
    4.3 loses its users and has to be restarted: no client can prevent that.
    """
    with Trial(rabbit_settings, WORK) as trial, work_stage.work.worker(rabbit_settings) as worker:
        with trial.sending(100):
            for _ in range(times):
                seconds_until_result(trial, 30)
                caplog.clear()
                rabbit.run(*FILL)
                try:
                    wait_for(
                        lambda: "sender is blocked: the broker is low on disk" in caplog.text, 30
                    )
                    threading.Event().wait(1)  # what was in transit
                    before = len(trial.history.confirmed)
                    threading.Event().wait(2)
                    assert len(trial.history.confirmed) == before
                finally:
                    rabbit.run("rm", FILLER)
                fault_row.heal_seconds.append(seconds_until_result(trial, 60))
        trial.settle(60)
        trial.wait_until_idle(worker)
        fault_row.add(trial.drain_queues(), times)


@pytest.mark.fault("F18")
@trial_counts(2, 10)
def test_disk_full_for_the_executed_copy(small, tmp_path, seeded_random, fault_row, times):
    """A run whose copy does not fit on the disk fails, and the saved file is valid."""
    document = nbformat.v4.new_notebook()
    sources = ["lines = 1", PRINTS, "'in between'", PRINTS, "'the end'"]
    document.cells = [nbformat.v4.new_code_cell(each) for each in sources]
    document.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(document, tmp_path / "prints.ipynb")
    while fault_row.trials < times:
        lines = seeded_random.randrange(100, 700)  # a copy of 20 KiB, or of more than fits
        done, left = small(
            sys.executable, "-m", "mousetrap", "check", "prints.ipynb", "-p", f"lines={lines}",
            "--output", "small/copy.ipynb",
        )  # fmt: skip
        copy = read(left / "copy.ipynb")  # it is valid
        assert [each.name for each in left.iterdir()] == ["copy.ipynb"]
        if done.returncode == 0:
            assert copy.passed
            fault_row.count_not_triggered(times)
            continue
        fault_row.trials += 1
        assert done.returncode == 1
        assert "completely: No space left on device" in done.stderr
        assert "Traceback" not in done.stderr
        assert copy.cells == len(sources) or not copy.passed
