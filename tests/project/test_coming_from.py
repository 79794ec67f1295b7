"""The pages "coming from": both programs of a page run as they stand, and print the same."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.documentation import PAGES
from support.waiting import wait_for

import mousetrap
from mousetrap.broker import ensure
from mousetrap.errors import QueueMissing
from mousetrap.pytest_plugin import missing
from mousetrap.settings import Settings

ROOT = Path(__file__).parents[2]
PEERS = [page.stem for page in sorted((PAGES / "coming_from").glob("*.md"))]
THEIRS, OURS = 1, 2  # the place of the section on its page
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def section(peer: str, side: int) -> list[tuple[str, str]]:
    """Return the blocks of one side of a page: language and text."""
    text = (PAGES / "coming_from" / f"{peer}.md").read_text(encoding="utf-8")
    return BLOCK.findall(re.split(r"^## With .*$|^## What differs$", text, flags=re.M)[side])


def run_section(blocks: list[tuple[str, str]], folder: Path, settings: Settings) -> tuple[str, str]:
    """Write the files of a section and start its commands; return what is to be printed, and was.

    All commands but the last are workers, or end by themselves. The output of the last one counts;
    that of dramatiq's actors comes on standard error, between lines of its log.
    """
    for language, code in blocks:
        if language == "python":
            (folder / code.partition("\n")[0].removeprefix("# ")).write_text(code)
    [commands] = [text for language, text in blocks if language == "console"]
    [wanted] = [text for language, text in blocks if language == "text"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | settings.to_environment() | {
        "PATH": path, "PYTHONPATH": str(ROOT), "C_FORCE_ROOT": "1",
    }  # fmt: skip

    def is_consumed() -> bool:
        try:
            return mousetrap.depth("words", settings).consumers > 0
        except QueueMissing:
            return False

    def output_of(number: int) -> str:
        return (folder / f"output{number}.txt").read_text()

    programs: list[subprocess.Popen[bytes]] = []
    last = -1
    try:
        for line in commands.splitlines():
            last += 1
            with (folder / f"output{last}.txt").open("w") as output:
                programs.append(subprocess.Popen(
                    shlex.split(line, comments=True), cwd=folder, env=environment,
                    stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                ))  # fmt: skip
            if line is not commands.splitlines()[-1]:
                wait_for(lambda: is_consumed() or programs[-1].poll() is not None, 40)
        wait_for(lambda: wanted in output_of(last) or programs[-1].poll() is not None, 40)
    finally:
        for program in reversed(programs):
            program.terminate()
        for program in programs:
            program.wait(20)
        for number in range(last + 1):
            print(output_of(number))  # shown if the test has failed
    return wanted, output_of(last)


@pytest.fixture
def embedded():
    """Settings of an embedded broker that only this test uses."""
    with ensure("embedded", Settings()) as broker:
        yield broker.settings


@pytest.mark.parametrize("peer", PEERS)
def test_their_program_runs(peer, embedded, tmp_path):
    """What the page says of another library is true of the version that is installed."""
    if find_spec(peer) is None:
        missing(f"{peer} is not installed: it is in the extra `bench`")

    wanted, printed = run_section(section(peer, THEIRS), tmp_path, embedded)

    assert f"\n{wanted}" in f"\n{printed}"


@pytest.mark.parametrize("peer", PEERS)
def test_our_program_does_the_same(peer, embedded, tmp_path):
    """Both programs of a page print the same."""
    wanted, printed = run_section(section(peer, OURS), tmp_path, embedded)

    assert f"\n{wanted}" in f"\n{printed}"
    assert wanted == dict(section(peer, THEIRS))["text"]


def test_our_program_runs_on_rabbitmq(settings, tmp_path):
    """What runs on the embedded broker runs on RabbitMQ."""
    wanted, printed = run_section(section("pika", OURS), tmp_path, settings)

    assert f"\n{wanted}" in f"\n{printed}"


def test_pages_compare_with_the_libraries_that_people_come_from():
    """A page has its two programs, and what differs."""
    assert PEERS == ["celery", "dramatiq", "faststream", "pika"]
    for peer in PEERS:
        assert [len(section(peer, side)) for side in (THEIRS, OURS)] == [4, 4], peer
