"""The notebooks keep to their conventions, and `check_pipeline` tells the truth."""

from __future__ import annotations

import ast
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from support.committed_outputs import EXERCISES, solutions

from mousetrap.check import parameters_of
from mousetrap.model.summary import SUMMARY_TYPE

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NUMBERED = [path for path in NOTEBOOKS if path.stem[0].isdigit()]
CHECKS = [path for path in NOTEBOOKS if path.stem.startswith(("check_", "bench_"))]

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
every_numbered = pytest.mark.parametrize("path", NUMBERED, ids=lambda path: path.stem)


def cells(path: Path, kind: str) -> list:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def calls(path: Path) -> list[tuple[str, str]]:
    """Each call in the notebook: the function's last name, and the source of its cell."""
    return [
        (node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id, cell.source)
        for cell in cells(path, "code")
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, (ast.Attribute, ast.Name))
        and ast.unparse(node.func) not in ("mousetrap.run", "mousetrap.consume")  # do not block
    ]


def test_notebooks_are_all_there():
    """Those to read and those to run exist, and every notebook is of one kind or the other."""
    names = {path.stem for path in NOTEBOOKS}

    assert names >= {"00_start_here", "01_channel", "02_publisher", "03_worker", "04_stages",
                     "05_failures", "06_bad_day", "check_pipeline", "check_recovery"}  # fmt: skip
    assert sorted(NUMBERED + CHECKS) == NOTEBOOKS


@every_notebook
def test_notebook_is_valid_and_those_to_run_are_stripped(path):
    """A notebook is nbformat 4.5 for the kernel python3; only those to read have outputs."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)

    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in cells(path, "code") if path in CHECKS else ():
        assert (cell.outputs, cell.execution_count) == ([], None), cell.id


@every_notebook
def test_notebook_begins_with_a_question_and_ends_with_roads_not_taken(path):
    """The title asks, and the last section says what was not done, and why; then come exercises."""
    prose = "\n\n".join(cell.source for cell in cells(path, "markdown"))
    headings = re.findall(r"^#+ .*$", prose, re.MULTILINE)

    assert re.fullmatch(r"# .+\?", headings[0])
    last = ["## Roads not taken", *["## Exercises"] * (path in NUMBERED)]
    assert headings[-len(last) :] == last


def test_first_notebook_begins_with_a_flow_on_the_embedded_broker():
    """Its first cell of code is the second one, and needs nothing: no broker, no cell before it."""
    title, first, *_ = nbformat.read(NUMBERED[0], as_version=4).cells

    assert title.cell_type == "markdown"
    assert 'ensure("embedded"' in first.source
    assert "run.settle(" in first.source


@every_numbered
def test_notebook_has_two_exercises_with_folded_solutions(path):
    """The solutions run after the notebook: `notebooks/conftest.py`."""
    notebook = nbformat.read(path, as_version=4)
    [exercises] = [cell.source for cell in notebook.cells if cell.id == EXERCISES]

    assert len(solutions(notebook)) == exercises.count("<details>") == 2
    assert re.findall(r"^\*\*(\d)\.\*\* ", exercises, re.M) == ["1", "2"]
    for solution in solutions(notebook):
        assert any(
            isinstance(node, (ast.Assert, ast.Assign)) for node in ast.walk(ast.parse(solution))
        )


@every_numbered
def test_notebook_ends_with_links_to_its_neighbours(path):
    """The text of a link is the title of the notebook it leads to; the last leads to the check."""
    at = NUMBERED.index(path)
    after = NUMBERED[at + 1] if path != NUMBERED[-1] else path.with_name("check_pipeline.ipynb")
    last = nbformat.read(path, as_version=4).cells[-1].source

    links = {target: text for text, target in re.findall(r"\[([^]]+)\]\(([^)]+)\)", last)}

    assert list(links) == [each.name for each in [*NUMBERED[at - 1 : at], after]]
    for target, text in links.items():
        title = cells(path.with_name(target), "markdown")[0].source.splitlines()[0]
        assert title.removeprefix("# ").lower() == text.lower()


def test_modules_and_notebooks_name_each_other():
    """A notebook names the modules it became, and exactly these modules name it as prototype."""
    named_by_notebooks = {
        (path.stem, module)
        for path in NOTEBOOKS
        for line in re.findall(r"^Refactored into: (.*)$", cells(path, "markdown")[0].source, re.M)
        for module in re.findall(r"`((?:mousetrap|peers)\.[\w.]+)`", line)
    }
    named_by_modules = {
        (notebook, ".".join(file.relative_to(folder.parent).with_suffix("").parts))
        for folder in (ROOT / "mousetrap", ROOT / "notebooks" / "peers")  # the benches' own package
        for file in folder.rglob("*.py")
        if "scaffold/project/" not in file.as_posix()  # its notebooks are templates, too
        for notebook in re.findall(
            r"Prototyped\s+in\s+``notebooks/(\w+)\.ipynb``",
            ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "",
        )
    }
    named_by_modules = {(one, two.removesuffix(".__init__")) for one, two in named_by_modules}

    assert named_by_notebooks == named_by_modules
    assert {notebook for notebook, _ in named_by_notebooks} == {path.stem for path in NOTEBOOKS}


def test_no_function_is_defined_in_two_notebooks():
    """What two notebooks need belongs into the package."""
    homes: dict[str, set[str]] = {}
    for path in NOTEBOOKS:
        for cell in cells(path, "code"):
            for node in ast.walk(ast.parse(cell.source)):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                    homes.setdefault(node.name, set()).add(path.stem)

    assert {name: where for name, where in homes.items() if len(where) > 1} == {}


@every_notebook
def test_no_cell_can_hang(path):
    """Nothing sleeps or waits for a key, and what consumes says when it stops."""
    endings = {"start_consuming": "stop_consuming", "consume": "inactivity_timeout"}
    for name, source in calls(path):
        assert name not in ("sleep", "input", "run", "run_fetch_worker", "run_processing_worker")
        assert endings.get(name, "") in source, source
    for cell in cells(path, "code"):
        assert "while True" not in cell.source, cell.id


@every_notebook
def test_parameters_are_typed_and_explained(path):
    """Each parameter has one of the four types that papermill can inject, and a word of help."""
    parameters = parameters_of(path)

    assert parameters or path not in CHECKS
    for parameter in parameters:
        assert parameter.type in ("str", "int", "float", "bool"), parameter
        assert len(parameter.help) > 10, parameter


@pytest.mark.parametrize("path", CHECKS, ids=lambda path: path.stem)
def test_plain_papermill_understands_the_parameters(path):
    """papermill's own parser, weaker than ours, reads the same names and the same help."""
    papermill = pytest.importorskip("papermill")

    seen = papermill.inspect_notebook(str(path))

    ours = {each.name: each.help for each in parameters_of(path)}
    assert {name: each["help"] for name, each in seen.items()} == ours


@every_numbered
def test_code_cells_are_small(path):
    """A cell to read has one to four lines; by hand in plain pika it may have 25."""
    lengths = [len(cell.source.splitlines()) for cell in cells(path, "code")]

    assert 1 <= statistics.median(lengths) <= 4
    assert max(lengths) <= 25


# ---- what check_pipeline claims ----------------------------------------------------------------


def papermill(source: Path, output: Path, settings, **parameters) -> subprocess.CompletedProcess:
    """Run *source* by the plain papermill command, as any user of papermill would."""
    options = [text for name, value in parameters.items() for text in ("-p", name, str(value))]
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", source, output, *options]
    environment = os.environ | settings.to_environment()
    return subprocess.run(
        command, env=environment, cwd=output.parent, capture_output=True, text=True, timeout=100
    )


def outputs(path: Path, mime_type: str) -> list:
    return [
        output.data[mime_type]
        for cell in cells(path, "code")
        for output in cell.outputs
        if mime_type in output.get("data", {})
    ]


def failed_cell(path: Path) -> str:
    [failed] = [
        cell.id
        for cell in cells(path, "code")
        if any(output.output_type == "error" for output in cell.outputs)
    ]
    return failed


@pytest.fixture
def pipeline() -> Path:
    return ROOT / "notebooks" / "check_pipeline.ipynb"


def test_check_pipeline_accounts_for_every_job(pipeline, settings, tmp_path):
    """500 jobs, an API that fails one time in ten, two broken bodies: none is lost."""
    executed = tmp_path / "executed.ipynb"

    run = papermill(pipeline, executed, settings, jobs=500, failure_rate=0.1, broken_jobs=2)

    assert run.returncode == 0, run.stderr[-3000:]
    [summary] = outputs(executed, SUMMARY_TYPE)
    assert summary["sent"] == summary["confirmed"] == summary["done"] + summary["dead"] == 502
    assert summary["lost"] == 0
    assert summary["retried"] > 20  # about 50, always the same for one seed
    assert summary["dead"] >= 2
    assert sum(summary["reasons"].values()) == summary["dead"]
    assert all(": " in reason for reason in summary["reasons"])  # as in "ValueError: no luck"
    assert len(outputs(executed, "image/png")) == len(outputs(executed, "image/svg+xml")) == 1
    assert settings.password not in executed.read_text(encoding="utf-8")


def robbed(source: Path, target: Path, cell: str, line: str) -> Path:
    """A copy of the notebook in which *line* goes before the cell's line that settles."""
    notebook = nbformat.read(source, as_version=4)
    [found] = [each for each in notebook.cells if each.id == cell]
    assert "    summary = run.settle(" in found.source
    found.source = found.source.replace("    summary =", f"    {line}\n    summary =")
    nbformat.write(notebook, target)
    return target


def test_check_pipeline_fails_when_a_message_is_lost(pipeline, settings, tmp_path):
    """Somebody takes a message on its way unseen: the check is red and says where it stopped."""
    thief = "drain('start_fetch', n=1, settings=run.settings)"
    source = robbed(pipeline, tmp_path / "robbed.ipynb", "run", thief)
    executed = tmp_path / "executed.ipynb"

    run = papermill(source, executed, settings, jobs=2000, broken_jobs=0, latency=0.01, deadline=25)

    assert run.returncode != 0
    assert failed_cell(executed) == "run"
    assert "NotSettled: no final outcome of 1 message of 1 job after 25 s" in run.stderr
    assert "start_fetch" in run.stderr


@pytest.mark.parametrize("queue", ["results", "start_fetch.dead"])
def test_check_pipeline_fails_when_a_queue_lacks_what_the_record_counts(
    pipeline, settings, tmp_path, queue
):
    """A result or a dead letter that is gone is missed: the queues are witnesses of their own."""
    thief = f"drain({queue!r}, n=1, timeout=20, settings=run.settings)"
    source = robbed(pipeline, tmp_path / "robbed.ipynb", "run", thief)
    executed = tmp_path / "executed.ipynb"

    run = papermill(source, executed, settings, jobs=3, broken_jobs=2, failure_rate=0)

    assert run.returncode != 0
    assert failed_cell(executed) == "claims"
    [summary] = outputs(executed, SUMMARY_TYPE)
    assert (summary["done"], summary["dead"]) == (3, 2)


def test_check_pipeline_fails_at_once_when_a_worker_dies(pipeline, settings, tmp_path):
    """A worker that cannot start is named with its last words, long before the deadline."""
    executed = tmp_path / "executed.ipynb"

    run = papermill(pipeline, executed, settings, jobs=5, concurrency=0, deadline=60)

    assert run.returncode != 0
    assert failed_cell(executed) == "run"
    assert re.search(r"worker process (fetch|process)-\d ended with exit code [12]", run.stderr)
    assert "concurrency" in run.stderr
