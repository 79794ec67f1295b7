"""No room on the disk: the broker's, and that on which executed notebooks are saved."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading

import nbformat
import pytest
from rig import flow
from rig.brokers import Container, is_here, wanted
from rig.trial import Trial, heals, sizes
from support.waiting import wait_for

from mousetrap.broker import docker
from mousetrap.check import read
from mousetrap.model.topology import Queue
from mousetrap.pytest_plugin import missing

WORK = Queue("work", flow.DELAYS)
BROKER_ROOM = 120  # MiB
FILLER = "/var/lib/rabbitmq/filler"
FILL = ("dd", "if=/dev/zero", f"of={FILLER}", "bs=1M", f"count={BROKER_ROOM - 40}")
BLOCKED = "sender is blocked: the broker is low on disk"
ROOM = 64  # KiB
PRINTS = "for n in range(lines):\n    print(f'{n:100}')"


@pytest.fixture
def small(tmp_path):
    """Run a command beside ``small``, on a disk of `ROOM`; return how it ended and a copy of that.

    The disk is mounted in a namespace of the command's own, so nobody has to take it down.
    """
    folder, left = tmp_path / "small", tmp_path / "left"
    folder.mkdir()
    script = (
        f"mount -t tmpfs -o size={ROOM}k none small || exit 99\n"
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
    """A broker with a small disk; goes before the one of that name that the other rows share."""
    if problem := docker.problem():
        missing(f"a broker with a small disk is a container: {problem}")
    if not is_here(wanted()):
        missing(f"no image of RabbitMQ {wanted()}")
    container = Container(wanted(), room=BROKER_ROOM)
    try:
        container.start()
        yield container
    finally:
        container.close()


@pytest.mark.fault("F18")
@sizes(1, 10)
def test_no_room_at_the_broker(own, rabbit, tally, caplog, times):
    """Its disk fills up in full swing: that is said, nothing is taken, and it goes on.

    Below its `disk_free_limit` RabbitMQ takes no messages. Without that, and to the last byte, 4.3
    loses sight of its users and has to be started again: no client can help there.
    """
    with Trial(own, WORK) as trial, flow.work.worker(own) as worker:
        with trial.sending(100):
            for _ in range(times):
                heals(trial, 30)
                caplog.clear()
                rabbit.run(*FILL)
                try:
                    wait_for(
                        lambda: "sender is blocked: the broker is low on disk" in caplog.text, 30
                    )
                    threading.Event().wait(1)  # what was on its way
                    before = len(trial.history.confirmed)
                    threading.Event().wait(2)
                    assert len(trial.history.confirmed) == before
                finally:
                    rabbit.run("rm", FILLER)
                tally.heals.append(heals(trial, 60))
        trial.settle(60)
        trial.rest(worker)
        tally.classify(trial.observe(), times)


@pytest.mark.fault("F18")
@sizes(2, 10)
def test_no_room_for_the_executed_copy(small, tmp_path, chance, tally, times):
    """Wherever the room ends, the run does not pass, and what is there is whole."""
    document = nbformat.v4.new_notebook()
    sources = ["lines = 1", PRINTS, "'in between'", PRINTS, "'the end'"]
    document.cells = [nbformat.v4.new_code_cell(each) for each in sources]
    document.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(document, tmp_path / "prints.ipynb")
    while tally.trials < times:
        lines = chance.randrange(100, 700)  # one copy of 20 KiB to more than there is room for
        done, left = small(
            sys.executable, "-m", "mousetrap", "check", "prints.ipynb", "-p", f"lines={lines}",
            "--output", "small/copy.ipynb",
        )  # fmt: skip
        copy = read(left / "copy.ipynb")  # it is whole
        assert [each.name for each in left.iterdir()] == ["copy.ipynb"]
        if done.returncode == 0:
            assert copy.passed
            tally.is_void(times)
            continue
        tally.trials += 1
        assert done.returncode == 1
        assert "cannot be saved whole: No space left on device" in done.stderr
        assert "Traceback" not in done.stderr
        assert copy.cells == len(sources) or not copy.passed
