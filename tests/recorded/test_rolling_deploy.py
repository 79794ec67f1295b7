"""A rolling deploy: workers of an older version and of this one share queues; nothing is lost."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest
from rig.recorded import EVENTS, VERSIONS, handlings, published
from rig.recorded_stages import COUNTS, double, work
from support.waiting import wait_for

import mousetrap
from mousetrap.job_queue import declare, open_channel
from mousetrap.model.message import Message

TESTS = Path(__file__).resolve().parents[1]


class RecordedWorker:
    """Consumes *queue* and publishes what a worker of *version* published for each message.

    Of each message that it gets first, every second time, it publishes only a part, and its
    connection ends before the ack, as if it were killed there. *deaths* counts these.
    """

    def __init__(self, settings, version, queue):
        self.settings, self.queue = settings, settings.topology.wire_name(queue)
        self.handlings = handlings(version)
        self.handled, self.deaths = 0, 0
        self._stop = threading.Event()
        self._error = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        if self._error:
            raise self._error

    def has_handled(self, number):
        """Return whether it has handled more than *number*, or has failed."""
        return self.handled > number or self._error

    def _run(self):
        try:
            while not self._stop.is_set():
                with open_channel(self.settings) as channel:
                    channel.confirm_delivery()
                    channel.basic_qos(prefetch_count=1)
                    self._consume(channel)
        except Exception as error:
            self._error = error  # raised at its end

    def _consume(self, channel):
        """Handle messages until the worker is stopped or dies."""
        for method, properties, _ in channel.consume(self.queue, inactivity_timeout=0.05):
            if self._stop.is_set():
                return
            if method is None:
                continue
            attempt = properties.message_id, properties.headers["mousetrap-attempt"]
            number = self.handled + self.deaths
            rows = [each.of_handling(*attempt, number) if each.has_outcomes else each
                    for each in self.handlings[attempt]]  # fmt: skip
            dies = not method.redelivered and number % 2 == 0
            for row in rows[: self.deaths // 2 % (len(rows) + 1)] if dies else rows:
                self._publish(channel, row)
            if dies:
                self.deaths += 1
                return
            channel.basic_ack(method.delivery_tag)
            self.handled += 1

    def _publish(self, channel, row):
        topology = self.settings.topology
        exchange = topology.events_exchange if row.exchange == EVENTS else ""
        key = topology.events_key if exchange else topology.wire_name(row.key)
        channel.basic_publish(exchange, key, row.body, row.pika_properties(), mandatory=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_rolling_deploy(settings, version):
    """Workers of that version, which die in between; both; then this version alone.

    The run of this version counts the outcomes of both, and each result has the id that it has in
    that version, so a sink stores it once.
    """
    rows = published(version)
    jobs = [Message.from_wire(each.body, each.pika_properties()) for each in rows
            if each.key == "work" and each.headers.keys() == {"mousetrap-attempt", "mousetrap-job"}
            and each.id.startswith((*COUNTS, "bad"))]  # fmt: skip
    with mousetrap.run([work, double], settings, workers="none") as run:
        declare(work.queue, double.queue, "side", settings=run.settings)
        with (
            RecordedWorker(run.settings, version, "work") as old,
            RecordedWorker(run.settings, version, "out") as second,
        ):
            run.send_many(jobs[::3])
            wait_for(lambda: old.has_handled(5) and second.has_handled(5))
            with work.worker(run.settings, prefetch=1) as new, double.worker(run.settings):
                run.send_many(jobs[1::3])
                wait_for(lambda: new.statistics().received)
        with work.worker(run.settings), double.worker(run.settings):
            run.send_many(jobs[2::3])
            summary = run.settle(timeout=30)
        results = run.results()

    assert old.deaths > 2
    assert second.deaths > 2
    assert (summary.sent, summary.done, summary.dead, summary.lost) == (20, 15, 5, 0)
    assert summary.reasons["ValueError: no luck"] == COUNTS["dead"]
    expected = {row.id for row in rows if row.key in ("results", "side")
                and row.headers["mousetrap-job"].startswith(tuple(COUNTS))}  # fmt: skip
    assert {each.id for each in results} == expected


@pytest.fixture
def package_before(request, tmp_path):
    """The folder with the package of a version, from the history of the repository."""
    version = request.getfixturevalue("version")
    archive = subprocess.run(
        ["git", "-C", TESTS.parent, "archive", "--format=tar", f"{version}:mousetrap"],
        capture_output=True, check=False,
    )  # fmt: skip
    if archive.returncode:
        pytest.skip("the history of the repository is not here")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(tmp_path / "mousetrap", filter="data")
    return tmp_path


def start(settings, stage, package):
    path = os.pathsep.join((str(package), str(TESTS)))
    environment = os.environ | settings.to_environment() | {"PYTHONPATH": path}
    command = [sys.executable, "-m", "mousetrap", "work", f"rig.recorded_stages:{stage}"]
    return subprocess.Popen([*command, "--prefetch", "4"], env=environment, cwd=package)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("version", VERSIONS)
def test_rolling_deploy_of_processes(settings, version, package_before, seeded_random):
    """Two processes of each stage are killed in turn and replaced by this version, then back."""
    settings = settings.replace(connect_timeout=60.0)
    versions = [package_before, TESTS.parent]
    number = 0
    with mousetrap.run([work, double], settings, workers="none") as run:
        declare(work.queue, double.queue, settings=run.settings)
        stages = ("work", "double", "work", "double")
        processes = [start(run.settings, each, package_before) for each in stages]
        try:
            for turn in range(3):  # to this version, back, and again
                for position, stage in enumerate(stages):
                    jobs = [{"kind": kind, "n": number + n} for kind in COUNTS for n in range(20)]
                    number += 20
                    run.send_many(jobs)
                    threading.Event().wait(seeded_random.uniform(0.0, 2.0))  # the moment
                    processes[position].kill()
                    processes[position].wait(20)
                    processes[position] = start(run.settings, stage, versions[(turn + 1) % 2])
            summary = run.settle(timeout=120)
        finally:
            for each in processes:
                each.kill()
                each.wait(20)
        results = {each.id: each.data for each in run.results()}

    sent = 20 * len(COUNTS) * 12
    assert (summary.sent, summary.done + summary.dead, summary.lost) == (sent, sent, 0)
    assert summary.dead == sent // len(COUNTS)
    assert summary.reasons == {"ValueError: no luck": summary.dead}
    assert len(results) == 2 * (sent - summary.dead) + 240  # two each, and those of `sends`
