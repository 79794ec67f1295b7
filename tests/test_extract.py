"""`extract`: tagged cells become a module that a worker runs; other cells are refused."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import mousetrap
from mousetrap.check import check
from mousetrap.errors import CheckError, ExtractError
from mousetrap.extract import extract
from mousetrap.job_queue import declare, drain

IMPORTS = "import json, math as maths\nfrom mousetrap import Message, stage\nimport os.path"
HELPER = "LIMIT = 10\n\ndef cut(text: str) -> str:\n    return text[:LIMIT]"
STAGE = '''\
@stage(reads="words", writes="lengths")
def measure(word: str) -> dict:
    """How long it is."""
    return {"length": maths.floor(len(cut(word))), "as": json.dumps(word)}
'''
TAGGED = "extract:measure"


def write_notebook(path, *cells):
    """Write a notebook; each cell is a source, or (source, tags)."""
    notebook = new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python"}})
    notebook.cells.append(new_markdown_cell("# What is it?"))
    for cell in cells:
        source, tags = (cell, []) if isinstance(cell, str) else cell
        notebook.cells.append(new_code_cell(source, metadata={"tags": tags}))
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A user's project as the current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def notebook(here):
    return write_notebook(
        here / "mine.ipynb", IMPORTS, (HELPER, [TAGGED]), "print('hello')", (STAGE, [TAGGED]),
        "assert measure('mousetraps!')['length'] == 10",
    )  # fmt: skip


def sources(path):
    cells = nbformat.read(path, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "code"]


def test_extract_writes_a_module_that_a_worker_runs(notebook, here, settings):
    """The module has the tagged cells and the imports they need; `mousetrap work` runs it."""
    found = extract(notebook, "measure", "my_flow/measure.py")

    assert (found.module, found.names) == ("my_flow.measure", ("LIMIT", "cut", "measure"))
    assert found.is_formatted
    assert found.is_importable
    text = found.path.read_text()
    assert "Prototyped in ``" in text
    for line in ("import json", "import math as maths", "from mousetrap import stage"):
        assert line in text.splitlines()
    for needless in ("Message", "os.path", "hello"):
        assert needless not in text
    (here / "send.txt").write_text('"mousetraps!"')
    # job and reader may come before the worker does
    declare("words", "lengths", settings=settings)
    environment = os.environ | settings.to_environment()
    command = [sys.executable, "-m", "mousetrap"]
    worker = subprocess.Popen(
        [*command, "work", "my_flow.measure:measure", "--with-parent"],
        stdin=subprocess.PIPE, env=environment,
    )  # fmt: skip
    subprocess.run(
        [*command, "send", "words", "--file", "send.txt"], env=environment, check=True, timeout=30
    )
    [result] = drain("lengths", 1, timeout=20, settings=settings)
    worker.communicate(timeout=20)

    assert result.data == {"length": 10, "as": '"mousetraps!"'}


def test_extract_leaves_the_notebook_importing_it(notebook):
    """The definitions stay, marked; the next cell imports the module's; the notebook still runs."""
    extract(notebook, "measure", "my_flow/measure.py")

    cells = sources(notebook)
    assert cells[1].startswith("LIMIT = 10\n\n# same as my_flow.measure:cut\ndef cut(")
    assert cells[3].startswith("# same as my_flow.measure:measure\n@stage(")
    statement, comment = cells[4].splitlines()
    assert statement == "from my_flow.measure import LIMIT, cut, measure"
    assert comment.startswith("# ")
    assert check(notebook).passed


def test_extract_again_needs_replace_and_changes_nothing_else(notebook):
    """An existing module is overwritten with --replace only, and the result is the same."""
    extract(notebook, "measure", "my_flow/measure.py")
    once = sources(notebook)
    with pytest.raises(ExtractError, match="exists already: overwrite it with --replace"):
        extract(notebook, "measure", "my_flow/measure.py")

    extract(notebook, "measure", "my_flow/measure.py", replace=True)

    assert sources(notebook) == once


def test_a_prototype_that_differs_is_refused_by_a_check(notebook, here):
    """The drift check reads the mark in the cell."""
    found = extract(notebook, "measure", "my_flow/measure.py")
    found.path.write_text(found.path.read_text().replace("text[:LIMIT]", "text[:LIMIT - 1]"))

    with pytest.raises(CheckError, match=r"my_flow.measure:cut.*not the same any more"):
        check(notebook)


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        ([(STAGE, [])], "no code cell tagged extract:measure"),
        ([("def other(): ...", [TAGGED])], "define no 'measure' but other"),
        (
            [IMPORTS, "cut = str.strip", (STAGE, [TAGGED])],
            "cell 4 depends on notebook state: 'cut' comes from cell 3",
        ),
        ([IMPORTS, (STAGE, [TAGGED])], "cell 3 uses 'cut', and nothing in the notebook defines it"),
        (
            [IMPORTS, (HELPER, [TAGGED]), (STAGE + "\nmeasure('x')", [TAGGED])],
            r"cell 4 does something when it is run: `measure\('x'\)`",
        ),
        ([IMPORTS, ("%time 1\n" + STAGE, [TAGGED])], "cell 3 is not plain Python"),
    ],
)
def test_extract_refuses_what_depends_on_the_notebook(here, cells, says):
    """The error names the cell; module and notebook stay unchanged."""
    notebook = write_notebook(here / "mine.ipynb", *cells)
    before = notebook.read_bytes()

    with pytest.raises(ExtractError, match=says):
        extract(notebook, "measure", "my_flow/measure.py")

    assert notebook.read_bytes() == before
    assert not (here / "my_flow").exists()


@pytest.mark.parametrize("output", ["my-flow/it.py", "it", "../elsewhere.py", "/tmp/it.py", "1.py"])
def test_extract_refuses_what_cannot_be_imported(notebook, output):
    """The path of a module must be an importable name."""
    with pytest.raises(ExtractError, match=r"cannot be imported: give a \.py file below"):
        extract(notebook, "measure", output)


def test_extract_says_when_ruff_is_missing(notebook, monkeypatch):
    """Without ruff the module is correct, but not formatted."""
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setattr("mousetrap.extract._can_import", lambda *_: False)

    found = extract(notebook, "measure", "my_flow/measure.py")

    assert not found.is_formatted
    compile(found.path.read_text(), "module", "exec")


def test_extract_from_the_command_line(notebook):
    """It prints what it wrote, and the command to run it."""
    done = subprocess.run(
        [sys.executable, "-m", "mousetrap", "extract", notebook.name, "--stage", "measure",
         "-o", "my_flow/measure.py"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "mousetrap work my_flow.measure:measure" in done.stderr.replace("\n", " ")


def test_extract_takes_the_exchanges_and_targets_of_a_stage(here, monkeypatch):
    """They are constants of a tagged cell; without the tag, the error names their cell."""
    exchange = 'orders = mousetrap.Exchange("orders", "topic")\nAUDIT = orders["*.paid"]'
    shape = (
        '@mousetrap.stage(mousetrap.Queue("audit", bindings=[AUDIT]), ["log", orders[str]], '
        'routes="errors")\ndef audit(order: str) -> str:\n    return order'
    )
    tagged = ["extract:audit"]
    cells = ("import mousetrap", (exchange, tagged), (shape, tagged))
    found = extract(write_notebook(here / "a.ipynb", *cells), "audit", "flow_of_orders.py")
    monkeypatch.syspath_prepend(here)
    audit = importlib.import_module("flow_of_orders").audit

    assert found.names == ("orders", "AUDIT", "audit")
    assert repr(audit) == "<Stage audit → audit → log, orders[str(...)], errors, concurrency 1>"
    untagged = write_notebook(here / "b.ipynb", "import mousetrap", exchange, (shape, tagged))
    with pytest.raises(ExtractError, match="'AUDIT' comes from cell 3"):
        extract(untagged, "audit", "other.py")


def test_extract_takes_the_batch_of_a_stage(here, monkeypatch):
    """The decorator is taken as it is, and `Batch` is imported."""
    cell = (
        '@stage(reads="words", batch=Batch(100, within=2.0))\n'
        "def insert(words: list[str]) -> None: ..."
    )
    write_notebook(
        here / "mine.ipynb", "from mousetrap import Batch, stage", (cell, ["extract:insert"])
    )

    extract("mine.ipynb", "insert", "table_flow.py")
    monkeypatch.syspath_prepend(here)
    insert = importlib.import_module("table_flow").insert

    assert (insert.batch.size, insert.batch.within, insert.message_type) == (100, 2.0, str)


JOINED = {
    "split": '@stage(reads="files", writes="images")\n'
             "def split(file: list[int]) -> Iterator[int]:\n    yield from file",
    "shrink": '@stage(reads="images", writes="thumbs", routes=["odd"], batch=Batch(2, 0.1))\n'
              "def shrink(images: list[int]) -> list:\n"
              '    return [Send(each, to="odd") if each % 2 else each for each in images]',
    "album": '@stage(reads="thumbs", joins="split", writes="albums")\n'
             "def album(parts: list[int]) -> list[int]:\n    return parts",
}  # fmt: skip
IMPORTS_OF_JOINS = "from collections.abc import Iterator\nfrom mousetrap import Batch, Send, stage"


def write_join_notebook(path, tags):
    """Write a notebook with a join; *tags* are the stages whose modules each stage goes to."""
    cells = [(JOINED[name], [f"extract:{each}" for each in tags[name]]) for name in JOINED]
    return write_notebook(path, IMPORTS_OF_JOINS, *cells)


def works(settings, modules):
    """Check that a worker for each of *modules*, a process each, joins a file."""
    declare("files", "albums", "odd", settings=settings)
    command = [sys.executable, "-m", "mousetrap", "work"]
    environment = os.environ | settings.to_environment()
    workers = [subprocess.Popen([*command, each], env=environment) for each in modules]
    try:
        mousetrap.send("files", mousetrap.Message([2, 3, 4]), settings=settings)
        [album] = drain("albums", 1, timeout=40, settings=settings)
        assert album.data == [2, 4]
    finally:
        for each in workers:
            each.kill()
            each.wait(10)


def test_extract_puts_the_stages_of_a_join_into_one_module(here, settings):
    """With one tag; batches and routes between work there, too, each stage in its own process."""
    notebook = write_join_notebook(here / "n.ipynb", {each: ["split"] for each in JOINED})
    found = extract(notebook, "split", "albums/stages.py")

    assert found.names == tuple(JOINED)
    works(settings, [f"albums.stages:{each}" for each in JOINED])


def test_extract_imports_the_join_into_the_module_of_its_split(here, settings):
    """Each stage in its own module: the join and the stages before it are extracted first."""
    notebook = write_join_notebook(here / "n.ipynb", {each: [each] for each in JOINED})
    with pytest.raises(ExtractError, match=r"cell 4: album joins what split makes.* know shrink"):
        extract(notebook, "split", "albums/split.py")
    extract(notebook, "shrink", "albums/shrink.py")
    with pytest.raises(ExtractError, match=r"cell 6: album joins what split makes.* know album"):
        extract(notebook, "split", "albums/split.py")
    extract(notebook, "album", "albums/album.py")
    text = extract(notebook, "split", "albums/split.py").path.read_text()

    assert "from albums.album import album  # noqa: F401" in text
    assert "Batch" not in text
    works(settings, [f"albums.{each}:{each}" for each in JOINED])


def test_extract_of_what_is_not_joined_imports_no_stage(here):
    """Only the stage that a join names must know it."""
    notebook = write_join_notebook(here / "n.ipynb", {each: [each] for each in JOINED})
    text = extract(notebook, "shrink", "shrink_flow.py").path.read_text()

    assert "def shrink" in text
    assert "album" not in text
