"""Faults of a kernel: interrupted, restarted, killed, and the consuming cell run again."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter

import pytest
from rig.checker import History
from rig.trial import trial_counts
from support.kernel import (
    EVERYTHING,
    HANDLER,
    connections,
    consumers,
    has_management,
    no_connections,
)
from support.messages import double, send
from support.waiting import wait_for

from mousetrap.job_queue import declare, depth, drain
from mousetrap.worker.worker import Worker


def history(settings, jobs):
    """Return the history of *jobs*: the parent of a result is its job."""
    ids = {job.id for job in jobs}
    results = drain("out", settings=settings, idle=0.5)
    dead = drain("work.dead", settings=settings, idle=0.2)
    left = drain("work", settings=settings, idle=0.2)
    return History(
        attempted=ids,
        confirmed=ids,
        effects=Counter(each.parent for each in results),
        dead={each.id: each.reason for each in dead},
        left=Counter(each.id for each in left),
    )


def finish(settings, jobs):
    """Let a worker without faults handle the messages of *jobs* that are left."""
    with Worker("work", double, settings, writes="out") as worker:
        wait_for(lambda: depth("out", settings).messages >= len(jobs) and worker.unacked == 0)


@pytest.mark.fault("F22")
@trial_counts(20, 100)
def test_cell_run_again(kernel, settings, fault_row, times):
    """After each edit there is one consumer, and each message is handled by the newest function."""
    jobs = []
    for version in range(times):
        kernel.run(HANDLER.format(version=version) + "handle = consume('work', work, writes='out')")
        wait_for(lambda: consumers(settings) == 1)  # two while its prefetch changes
        jobs += send(settings, *range(5 * version, 5 * version + 5))
        kernel.run("handle.wait_until(done=5)")

    assert kernel.value("seen") == [(n // 5, n) for n in range(5 * times)]
    assert kernel.value("handle.version.number, handle.statistics().reconnects") == (times, 0)
    fault_row.add(history(settings, jobs), times)
    assert fault_row.duplicates == 0


WAITS = ["connect", "wait", "handler", "confirm"]


def interrupt_often(kernel, settings, proxy, what, times):
    """Interrupt a waiting cell; return the seconds until the call ended and until the cell did.

    What the kernel waited for a processor, which other processes used, is not the cell's time.
    """
    declare("elsewhere", settings=settings)
    # IPython's first traceback takes half a second of computing, and so does the first one through
    # our modules, whose source it parses: neither is to be measured
    kernel.finish(kernel.start("raise KeyboardInterrupt"))
    nobody = "Settings(host='127.0.0.1', port=9, connect_timeout=0.1)"
    refused = kernel.finish(kernel.start(f"consume('elsewhere', print, {nobody})"))
    assert refused.error == "BrokerUnreachable"
    kernel.run("""
def work(seconds: float) -> float:
    end = time.monotonic() + seconds
    while time.monotonic() < end: pass
    return seconds
handle = consume("work", work, writes="out")
sent = 0
""")
    silent = socket.create_server(("127.0.0.1", 0))
    here = f"Settings.from_environment().replace(host='127.0.0.1', port={silent.getsockname()[1]}, "
    there = f"Settings.from_environment().replace(host='127.0.0.1', port={proxy.settings.port})"
    code = {
        "connect": f"consume('elsewhere', work, {here}connect_timeout=60))",
        "wait": "handle.wait_until(done=1_000_000, timeout=60)",
        "handler": "handle.wait_until(done=1_000_000, timeout=60)",
        "confirm": "publisher.publish(Message(0.0), 'elsewhere').wait(60)",
    }[what]
    if what == "confirm":
        kernel.run(f"publisher = Publisher({there}).open()")
        proxy.hold()
    waits, cells, jobs = [], [], []
    for _ in range(times):
        if what == "handler":
            jobs += send(settings, 1.5)
        cell = kernel.start(f"try: {code}\nexcept KeyboardInterrupt:\n  end = time.time(); raise")
        with pytest.raises(AssertionError, match="in time"):  # because it waits
            kernel.finish(cell, 0.4)
        queued, started = kernel.queued(), time.time()
        kernel.interrupt()
        kernel.finish(cell, 10)
        cells.append(cell.ended - started - (kernel.queued() - queued))
        assert cell.error == "KeyboardInterrupt", cell.traceback
        waits.append(kernel.value("end") - started)
    proxy.cut()
    proxy.release()
    silent.close()
    return waits, cells, jobs


@pytest.mark.fault("F22")
@trial_counts(3, 25)
@pytest.mark.parametrize("what", WAITS)
def test_interrupted_in(kernel, settings, proxy, fault_row, what, times):
    """An interrupted wait ends within a second; the consumer goes on, and nothing is lost."""
    waits, cells, jobs = interrupt_often(kernel, settings, proxy, what, times)
    jobs += send(settings, *[0.0] * 10)
    kernel.run(f"handle.wait_until(done={len(jobs)}, timeout=60)")

    print(f"{what}: {times} interrupts; at most {max(waits):.2f} s until it ended, "
          f"{max(cells):.2f} s until the cell did")  # fmt: skip
    assert max(waits) < 1
    # while a handler computes, IPython's traceback gets only part of the processor
    assert max(cells) < (2 if what == "handler" else 1)
    assert kernel.value("handle.statistics().reconnects, handle.is_running") == (0, True)
    wait_for(lambda: consumers(settings) == 1)  # two while its prefetch changes
    assert consumers(settings, "elsewhere") == 0
    assert kernel.value("len(mousetrap.notebook.registry.handles())") == 1
    fault_row.add(history(settings, jobs), times)


@pytest.mark.fault("F22")
@trial_counts(1, 25)
@pytest.mark.parametrize("state", ["idle", "busy"])
def test_restarted_while(kernel, settings, fault_row, state, times):
    """Within five seconds of a restart, of an idle or a busy kernel, no connection is left."""
    jobs = []
    for _ in range(times):
        kernel.run(EVERYTHING)
        old = kernel.pid
        if has_management(settings):
            wait_for(lambda old=old: len(connections(settings, old)) >= 8)
        jobs += send(settings, 20, 20)  # seconds
        kernel.run("begun.wait(10)")
        if state == "busy":
            kernel.start("while True: pass")
        started = time.monotonic()

        def wait_until_closed(
            old=old, started=started
        ):  # on a thread: the new kernel takes long to start
            wait_for(lambda: no_connections(settings, old))
            fault_row.heal_seconds.append(time.monotonic() - started)

        waiting = threading.Thread(target=wait_until_closed)
        waiting.start()
        kernel.restart()
        waiting.join()
        assert fault_row.heal_seconds[-1] < 5
        assert kernel.pid != old
        assert kernel.value("mousetrap.notebook.registry.handles()") == []
        finish(settings, jobs)
    fault_row.add(history(settings, jobs), times)


@pytest.mark.fault("F22")
@trial_counts(1, 25)
def test_kernel_killed(start_kernel, settings, fault_row, times):
    """After kill -9 in a handler the connections end within two heartbeats.

    The messages are delivered to another consumer.
    """
    settings = settings.replace(heartbeat=2.0)
    jobs = []
    for _ in range(times):
        kernel = start_kernel(settings)
        kernel.run(EVERYTHING)
        jobs += send(settings, 30, 30)  # seconds
        kernel.run("begun.wait(10)")
        old, started = kernel.pid, time.monotonic()
        kernel.kill()
        wait_for(lambda old=old: no_connections(settings, old))
        fault_row.heal_seconds.append(time.monotonic() - started)
        assert fault_row.heal_seconds[-1] < 2 * settings.heartbeat
        finish(settings, jobs)
    fault_row.add(history(settings, jobs), times)
