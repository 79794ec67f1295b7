"""Every block of README works as it stands, in the order in which a reader copies them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from support.waiting import wait_for

import mousetrap
from mousetrap.job_queue import delete, open_channel
from mousetrap.pytest_plugin import missing

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
NAMES = [
    "first example", "install", "clone",
    "words.py", "test_words.py", "repair",
    "shop.py", "their queue",
    "parameters", "check cell", "check",
    "compose.yml",
]  # fmt: skip
BLOCK = dict(zip(NAMES, (code for _, code in BLOCKS), strict=True))
HEAD = "import mousetrap\nfrom words import measure\n"


@pytest.fixture
def folder(settings, monkeypatch, tmp_path):
    """A reader's folder, with the files that README says how to call."""
    for name, value in settings.to_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    monkeypatch.setenv("PATH", path)
    monkeypatch.chdir(tmp_path)
    for name in ("words.py", "test_words.py", "shop.py"):
        (tmp_path / name).write_text(BLOCK[name])
    cells = [nbformat.v4.new_code_cell(BLOCK[name]) for name in ("parameters", "check cell")]
    cells[0].metadata.tags = ["parameters"]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "check_words.ipynb")
    return tmp_path


def commands(name: str) -> list[list[str]]:
    """Return the commands of a block, without their comments."""
    return [shlex.split(line, comments=True) for line in BLOCK[name].splitlines()]


def run(command: list[str], timeout: float = 60.0) -> str:
    """Run *command* in the reader's folder; return what it printed, if it succeeded."""
    if command[0] == "python":
        command = [sys.executable, *command[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_two_stages_and_the_test_from_their_run(folder):
    """The run prints what README says; its recording is two tests, which see a changed stage."""
    assert run(["python", "words.py"]) == "2 ['long', 'short']\n"

    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_words.py"]
    assert "2 passed" in run(tests)

    (folder / "words.py").write_text(BLOCK["words.py"].replace("len(word)", "len(word) + 1"))
    done = subprocess.run(tests, capture_output=True, text=True, check=False, timeout=60)
    assert "1 failed, 1 passed" in done.stdout


def test_failed_messages_are_repaired(folder, monkeypatch, capsys):
    """The number becomes a text; all three lengths are there, and no dead letter is left."""
    monkeypatch.syspath_prepend(folder)
    assert BLOCK["repair"].startswith(HEAD)
    names: dict[str, object] = {}
    try:
        exec(compile(BLOCK["repair"], "README: repair", "exec"), names)

        assert capsys.readouterr().out.startswith("UndecodableMessage")
        assert [each.data for each in names["lengths"]] == [5, 4]
        assert not mousetrap.dead(names["measure"])
        assert mousetrap.depth("words").messages + mousetrap.depth("lengths").messages == 1
    finally:
        sys.modules.pop("words", None)


def test_a_queue_that_exists_is_read_as_it_is(folder, settings, monkeypatch):
    """Each command works on a queue with arguments of its own; the worker takes what is in it."""
    monkeypatch.setenv("MOUSETRAP_QUEUES_EXPIRE", "0")  # as outside of tests
    queue = f"{settings.namespace}.company.orders"
    with open_channel(settings) as channel:
        channel.queue_declare(queue, durable=True, arguments={"x-max-length": 1000})
    mousetrap.declare("accepted")  # or the wait below finds no queue
    mousetrap.send(mousetrap.Queue("company.orders", declare=False), {"id": 1})
    peek, topology, work = commands("their queue")

    assert '{"id":1}' in run(peek)
    definitions = run(topology)
    assert "accepted" in definitions
    assert '"company.orders"' not in definitions
    worker = subprocess.Popen(work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: mousetrap.depth("accepted").messages == 1, 20)
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=20)
    [accepted] = mousetrap.drain("accepted", n=1)
    assert accepted.data == {"id": 1, "accepted": True}
    delete("company.orders", "accepted", settings=settings)


def test_a_notebook_is_a_check(folder):
    """It passes with the values of the command, and fails if a message is dead-lettered."""
    check, grid = commands("check")

    run(check)
    assert (folder / "_build" / "check_words.ipynb").exists()

    stage = BLOCK["words.py"].replace("return len(word)", "raise mousetrap.Reject('no')")
    (folder / "words.py").write_text(stage)
    done = subprocess.run(check, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "AssertionError" in done.stdout + done.stderr
    assert grid[3] == "--grid"


@pytest.mark.long
def test_a_grid_of_checks_has_a_page(folder):
    """The second command writes a page, and results for CI."""
    run(commands("check")[1], timeout=100)

    assert {"index.html", "junit.xml"} <= {each.name for each in (folder / "results").iterdir()}


def test_workflow_of_a_check_is_valid(tmp_path):
    """GitHub's schema accepts that of the recipe, and it runs the command of README."""
    recipes = (ROOT / "deploy" / "docs" / "recipes.md").read_text(encoding="utf-8")
    [workflow] = re.findall(r"^```yaml\n(.*?)^```", recipes, re.MULTILINE | re.DOTALL)
    (tmp_path / "check.yml").write_text(workflow)
    run([sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows",
         str(tmp_path / "check.yml")])  # fmt: skip

    steps = yaml.safe_load(workflow)["jobs"]["check"]["steps"]
    assert shlex.split(steps[-1]["run"]) == commands("check")[0]


def test_workers_in_containers_are_what_compose_takes(folder):
    """Compose accepts the file, and the command of the worker handles messages."""
    service = yaml.safe_load(BLOCK["compose.yml"])["services"]["measure"]
    mousetrap.declare("words", "lengths")
    worker = subprocess.Popen(shlex.split(service["command"]),
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    try:
        mousetrap.send("words", "mouse")
        wait_for(lambda: mousetrap.depth("lengths").messages == 1, 20)
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=20)
    assert worker.returncode == 0

    if shutil.which("docker") is None:
        missing("no docker on the PATH")
    (folder / "compose.yml").write_text(BLOCK["compose.yml"])
    run(["docker", "compose", "config", "--quiet"])


def test_install_block_names_the_distribution_and_commands():
    """What it installs from the index is the project's name, with an extra that exists."""
    text = BLOCK["install"]

    assert "pip install 'mousetrap-mq[project]'" in text
    assert [each[:2] for each in commands("install")[1:]] == [
        ["mousetrap", "demo"], ["mousetrap", "notebooks"], ["mousetrap", "new"]
    ]  # fmt: skip


def test_readme_is_short():
    """A first reader gets through it: the rest is in deploy/docs."""
    assert len(README.splitlines()) <= 275
