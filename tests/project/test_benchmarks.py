"""The benches run, keep their figures, and the peers do what they are said to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import make_measured
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "notebooks"))

from peers import NAMES  # noqa: E402 -- the benches' own package
from peers.race import Race  # noqa: E402
from rig.byte_proxy import ByteProxy  # noqa: E402
from rig.guarantees import GuaranteeObserver  # noqa: E402

FIGURES = {  # of each, some that it must have computed
    "bench_publish": [
        "publish_many / bare socket", "publish_many / fastest peer",
        "defaults: publish_many / fastest peer",
    ],
    "bench_flow": [
        "hop / fastest peer", "hop / aio-pika", "hop / tutorial's loop",
        "waiting jobs: time / ideal", "computing jobs: 2 processes / 1",
        "two stages, embedded broker / this one", "defaults: hop / fastest peer",
    ],
    "bench_call": ["call / by hand, p50", "rounds"],
    "bench_batch": ["batch / single", "batch / single, by hand without a broker"],
    "bench_join": ["part / hop", "rounds, seconds"],
    "bench_prefetch": ["default / best", "prefetch found", "shares of 12 slow messages"],
    "bench_scaling": ["work, processes / 1", "microseconds a message, broker"],
    "bench_latency": [
        "two stages / bare pika, p50", "two stages / bare pika, safe, p99", "scaling",
        "import mousetrap / import pika", "one hop, defaults",
    ],
}  # fmt: skip


@pytest.mark.long  # in every run of the tests they run small, as pyproject.toml says
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", FIGURES)
def test_bench_runs_and_keeps_its_figures(name, settings, tmp_path):
    """`mousetrap check` runs it with its defaults; its figures are in the JSON, computed."""
    done = subprocess.run(
        [sys.executable, "-m", "mousetrap", "check", ROOT / "notebooks" / f"{name}.ipynb",
         "--output", tmp_path / "executed.ipynb"],
        env=os.environ | settings.to_environment() | {"BENCH_FIGURES": str(tmp_path)},
        capture_output=True, text=True, timeout=360,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads((tmp_path / f"{name}.json").read_text())
    assert all(figures[key] for key in FIGURES[name]), figures


def test_every_bench_runs_small_in_every_run():
    """A new one has a table of parameters, too: else it would run with its defaults."""
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mousetrap"]["notebooks"]
    benches = {path.stem for path in (ROOT / "notebooks").glob("bench_*.ipynb")}

    assert benches == set(FIGURES)
    for name in benches:
        assert tables[f"notebooks/{name}.ipynb"]["parameters"].keys() == {"small"}


def test_measured_table_has_the_shapes_that_were_measured(tmp_path, monkeypatch):
    """A results file is enough for a row; the figure is one that the benchmark computes."""
    for path in make_measured.RESULTS.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(make_measured, "RESULTS", tmp_path)
    for name, _, figure, *_ in make_measured.SHAPES:
        assert figure in FIGURES[f"bench_{name}"]
        (tmp_path / f"bench_{name}.json").unlink(missing_ok=True)
    without = make_measured.measured_table()
    (tmp_path / "bench_join.json").write_text('{"part / hop": 1.234}')
    new = set(make_measured.measured_table().splitlines()) - set(without.splitlines())

    assert [row.split("|")[2].strip() for row in new] == ["1.23"]


class Watched(Race):
    """A race whose messages are watched on the wire: the latest queue is where they go."""

    guarantees: GuaranteeObserver

    def _fresh(self, name, word):
        place = super()._fresh(name, word)
        self.guarantees.watch(place, source=self.guarantees.target if word == "target" else "")
        return place


@pytest.mark.parametrize("name", NAMES)
def test_peer_moves_its_messages_and_keeps_what_it_promises(name, settings):
    """All arrive, and its source is empty after; what the table says of it is true on its wire."""
    guarantees = GuaranteeObserver()
    with ByteProxy(settings) as byte_proxy:
        byte_proxy.on_command = guarantees.record
        Watched.guarantees = guarantees
        with Watched(byte_proxy.settings, [name]) as race:
            if race.missing:
                pytest.skip(f"{name} is not installed")
            peer = race.racers[name].peer

            assert race.publish(name, 200, 250, 50) > 0
            assert of_publishing(guarantees.counts) == (
                peer.persistent,
                peer.confirmed,
                peer.mandatory,
            )
            assert race.hop(name, 200, 250, 20, 1, 50) > 0
            counts = guarantees.counts
            assert of_publishing(counts) == (peer.persistent, peer.confirmed, peer.mandatory)
            assert counts.acked == counts.published
            assert (not counts.acked_early) is peer.ack_last


def of_publishing(counts):
    """Which of the three hold for all of its messages."""
    return tuple(
        counts.all_of(each) for each in (counts.persistent, counts.confirmed, counts.mandatory)
    )
