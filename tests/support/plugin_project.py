"""A user's project for the tests of the pytest plugin: a stage, its tests, and notebooks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from support.notebook_files import WAIT_FOREVER

PROJECT = """
[tool.pytest.ini_options]
pythonpath = ["."]
mousetrap_deadline = 90

[tool.mousetrap.notebooks."books/check_lengths.ipynb"]
parameters = [{ words = 3 }, { words = 2, poison = 1 }, { word = 3 }, { api_key = "hunter2" }]

[tool.mousetrap.notebooks."books/hangs.ipynb"]
deadline = 10
"""

STAGES = '''
from mousetrap import stage

@stage(reads="words", writes="lengths", retry_delays=(0.05,))
def measure(word: str) -> int:
    """Return how long *word* is."""
    if word == "poison":
        raise ValueError("no luck at amqp://me:letmein@host/ \\x1b[31m")
    return len(word)
'''

TESTS = """
import os
from lengths import measure
from mousetrap import Message, Publisher, drain

def test_flow(namespace):
    with measure.start(), Publisher() as publisher:
        publisher.publish(Message("trap"), "words").wait()
        assert drain("lengths", n=1, timeout=10)[0].data == 4

def test_outside():
    assert os.environ["MOUSETRAP_NAMESPACE"] == ""
    assert "MOUSETRAP_DECLARED" not in os.environ

def test_that_fails(namespace):
    with measure.start() as worker, Publisher() as publisher:
        publisher.publish(Message("poison"), "words").wait()
        worker.wait_until(dead=1, timeout=10)
        assert False, "see the queues"
"""

# Writes the environment of the kernel to a file that the tests read.
WRITE_ENVIRONMENT = """
import json, os, sys
from pathlib import Path
names = ("MOUSETRAP_NAMESPACE", "MOUSETRAP_BROKER", "RABBITMQ_URL", "MOUSETRAP_QUEUE_EXPIRY")
seen = {name: os.environ.get(name) for name in names}
with open("seen.jsonl", "a") as file:
    file.write(json.dumps(seen) + "\\n")
from lengths import measure
from mousetrap import Message, Publisher, drain
"""

SEND = """
worker = measure.start()
with Publisher() as publisher:
    for word in ["trap"] * words + ["poison"] * poison:
        publisher.publish(Message(word), "words").wait()
worker.wait_until(done=words, dead=poison, timeout=30)
"""

CLAIM = "assert len(drain('lengths', timeout=10)) == words\nassert not poison, 'there was poison'"

LEAVE = """
import subprocess
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
Path("forgotten.pid").write_text(str(child.pid))
"""


def write_notebook(path: Path, *cells: str, parameters: str = "", **metadata: object) -> Path:
    """Write a notebook: a parameters cell if given, then the code cells."""
    document = new_notebook(metadata=metadata)
    if parameters:
        cell = new_code_cell(parameters, metadata={"tags": ["parameters"]})
        document.cells.append(cell)
    document.cells += [new_code_cell(cell.strip()) for cell in cells]
    path.parent.mkdir(exist_ok=True)
    nbformat.write(document, path)
    return path


def write_project(root: Path) -> Path:
    """Write a user's project: a stage, its tests, and notebooks of each kind."""
    words = "words: int = 2  # how many words that succeed\npoison: int = 0  # how many fail"
    (root / "pyproject.toml").write_text(PROJECT)
    (root / "lengths.py").write_text(STAGES)
    (root / "test_lengths.py").write_text(TESTS)
    books = root / "books"
    write_notebook(books / "check_lengths.ipynb", WRITE_ENVIRONMENT, SEND, CLAIM, parameters=words)
    write_notebook(
        books / "named.ipynb", WRITE_ENVIRONMENT, SEND, CLAIM,
        parameters=words, mousetrap={"parameters": {"quick": {"words": 1}}},
    )  # fmt: skip
    write_notebook(
        books / "plain.ipynb", WRITE_ENVIRONMENT, "words, poison = 1, 0", SEND, CLAIM, LEAVE
    )
    write_notebook(books / "fails.ipynb", WRITE_ENVIRONMENT, "words, poison = 1, 1", SEND, CLAIM)
    leave = LEAVE.replace("forgotten.pid", "hanging.pid")
    write_notebook(books / "hangs.ipynb", WRITE_ENVIRONMENT, leave, WAIT_FOREVER)
    prototype = STAGES.partition("\n\n")[2].replace("len(word)", "len(word) + 1")
    write_notebook(
        books / "drifted.ipynb",
        "from mousetrap import stage",
        f"# same as lengths:measure\n{prototype}",
    )
    return root


def run_pytest(root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run pytest in the folder *root* with more variables in its *environment*."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=root, env=os.environ | environment, capture_output=True, text=True, timeout=110,
    )  # fmt: skip
