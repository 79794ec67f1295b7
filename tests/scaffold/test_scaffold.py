"""``mousetrap new``: the project works as it is, and nothing is overwritten."""

from __future__ import annotations

import json
import keyword
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell
from typer.testing import CliRunner

import mousetrap.scaffold
from mousetrap import scaffold
from mousetrap.cli import app
from mousetrap.cli.commands import COMMANDS
from mousetrap.errors import ScaffoldError
from mousetrap.scaffold import create_project
from mousetrap.scaffold.project_names import MAX_PROJECT_NAME, check_project_name

TEMPLATES = Path(mousetrap.scaffold.__file__).parent
FIRST_HOUR = TEMPLATES.parents[1] / "deploy" / "docs" / "first_hour.md"
NEW_STAGE = '''\
@stage(reads="reports", writes="lines")
def describe(report: Report) -> str:
    """One line for people."""
    return f"{report.city}: {report.fahrenheit:.0f} °F"
'''


def run_in(folder: Path, *command: str, **variables: str) -> str:
    """Run a command as a user of the project does; return its output, which is that of success."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV_")}
    environment["PYTHONPATH"] = str(TEMPLATES.parents[1])  # mousetrap itself; nothing of tests/
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=environment | variables,
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def passed(output: str) -> int:
    """Return how many tests pytest has passed; none was skipped or failed."""
    [last] = re.findall(r"^=+ (\d+ passed.*) in ", output, re.MULTILINE)
    assert re.fullmatch(r"\d+ passed", last)
    return int(last.split()[0])


def test_new_project_passes_its_own_tests_on_rabbitmq(tmp_path, settings):
    """Tests, recording, prototype and check are green, and so are ruff and mypy."""
    made = create_project("tide_gauge", tmp_path)
    broker = settings.to_environment() | {"MOUSETRAP_BROKER": "external"}

    output = run_in(made.folder, "pytest", "-p", "no:cacheprovider", **broker)

    assert passed(output) == 11
    run_in(made.folder, "ruff", "check", ".")
    run_in(made.folder, "ruff", "format", "--check", ".")
    run_in(made.folder, "mypy")


def test_minimal_project_with_the_longest_name_passes_on_the_embedded_broker(tmp_path):
    """Without containers, workflow and recording; a formatter finds nothing to change."""
    name = "a" * (MAX_PROJECT_NAME - 2) + "_9"
    made = create_project(name, tmp_path, minimal=True)

    output = run_in(
        made.folder, "pytest", "tests", "-p", "no:cacheprovider", CI="", MOUSETRAP_BROKER="embedded"
    )

    assert passed(output) == 6
    run_in(made.folder, "ruff", "check", ".")
    run_in(made.folder, "ruff", "format", "--check", ".")
    assert not any("deploy" in each or "recording" in each for each in made.files)
    readme = (made.folder / "README.md").read_text(encoding="utf-8")
    assert "deploy/" not in readme
    assert "recording" not in readme


def test_extract_writes_the_package_of_the_project_again(tmp_path):
    """What `mousetrap extract` makes of the notebook is what the project has, byte by byte."""
    made = create_project("tide_gauge", tmp_path)
    before = {each: (made.folder / each).read_bytes() for each in made.files}

    for stage, module in (("parse", "parsing"), ("convert", "converting")):
        run_in(made.folder, "mousetrap", "extract", "notebooks/prototype.ipynb", "--stage", stage,
               "-o", f"tide_gauge/{module}.py", "--replace")  # fmt: skip

    assert {each: (made.folder / each).read_bytes() for each in made.files} == before


def test_extract_adds_a_stage_to_the_project(tmp_path):
    """A new cell becomes a module that imports from the others; the flow has it at once."""
    made = create_project("tide_gauge", tmp_path)
    path = made.folder / "notebooks" / "prototype.ipynb"
    notebook = nbformat.read(path, as_version=4)
    cell = new_code_cell(NEW_STAGE, metadata={"tags": ["extract:describe"]})
    at = [each.id for each in notebook.cells].index("import-convert") + 1
    notebook.cells.insert(at, cell)
    nbformat.write(notebook, path)

    run_in(made.folder, "mousetrap", "extract", "notebooks/prototype.ipynb", "--stage", "describe",
           "-o", "tide_gauge/describing.py")  # fmt: skip

    written = (made.folder / "tide_gauge" / "describing.py").read_text(encoding="utf-8")
    assert "from tide_gauge.converting import Report" in written
    shown = run_in(made.folder, "mousetrap", "describe", "tide_gauge.parsing:parse",
                   "tide_gauge.converting:convert", "tide_gauge.describing:describe")  # fmt: skip
    assert "lines" in shown
    run_in(made.folder, "pytest", "-q", "-k", "drift", "notebooks", "-p", "no:cacheprovider")
    run_in(made.folder, "ruff", "check", ".")


def test_every_template_is_in_a_project():
    """A file beside the templates that no project gets would be dead."""
    listed = set(scaffold._FILES) | set(scaffold._FULL_ONLY)
    found = {
        each.relative_to(TEMPLATES / "project").as_posix()
        for each in (TEMPLATES / "project").rglob("*")
        if each.is_file() and not re.search(r"__pycache__|_cache/|_build/", str(each))
    }

    assert found == listed
    assert set(scaffold._DIFFERENT_IF_MINIMAL) == {
        each.name for each in (TEMPLATES / "minimal").iterdir()
    }


@pytest.mark.parametrize("folder", ["project", "minimal"])
def test_readme_names_only_files_and_commands_that_exist(tmp_path, folder):
    """Each path is in the project, and each command is one of `mousetrap --help`."""
    made = create_project("my_flow", tmp_path, minimal=folder == "minimal")
    text = (made.folder / "README.md").read_text(encoding="utf-8")

    for path in re.findall(r"\b(?:deploy|notebooks|tests|my_flow|\.github)/[\w./-]*\w", text):
        assert (made.folder / path).exists(), path
    assert set(re.findall(r"^mousetrap (\w+)", text, re.MULTILINE)) <= set(COMMANDS)


WORDS = [word for word in (*keyword.kwlist, *keyword.softkwlist) if word.isalpha()]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        *((word.lower(), "Python's grammar") for word in WORDS if word.islower()),
        ("json", "hide the module json"),
        ("mousetrap", "hide this one"),
        ("pytest", "installed"),
        ("tests", "folder of this name"),
        ("aux", "Windows"),
        ("My-Flow", "like my_flow"),
        ("3d_scans", "like d_scans"),
        ("my__flow", "like my_flow"),
        ("a/b", "like a_b"),
        ("..", "like my_flow"),
        ("", "like my_flow"),
        ("größe", "small letters"),
        ("x" * (MAX_PROJECT_NAME + 1), "at most"),
    ],
)
def test_bad_name_is_refused_with_a_reason(tmp_path, name, says):
    """Nothing is written, and what the error suggests is accepted."""
    with pytest.raises(ScaffoldError, match=re.escape(says)) as refused:
        create_project(name, tmp_path)

    assert list(tmp_path.iterdir()) == []
    if suggested := re.search(r"like (\w+)$", str(refused.value)):
        check_project_name(suggested[1])


def test_nothing_is_overwritten(tmp_path):
    """A file, and a folder with something in it, are refused and left alone."""
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()

    for name in ("taken", "file"):
        with pytest.raises(ScaffoldError, match="exists already"):
            create_project(name, tmp_path)
    create_project("empty", tmp_path)

    assert [each.name for each in (tmp_path / "taken").iterdir()] == ["mine.txt"]
    assert (tmp_path / "file").read_text() == "mine"
    assert (tmp_path / "empty" / "pyproject.toml").is_file()


def test_a_project_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    """The disk is full in the middle: no half of a project stays."""
    written = []

    def fail(file, *_):
        written.append(file)
        if len(written) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(scaffold, "_write", fail)
    with pytest.raises(ScaffoldError, match="No space left"):
        create_project("my_flow", tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_command_says_what_to_type_next(tmp_path, monkeypatch):
    """The steps are commands in order, as the documentation shows them; an error has code 2."""
    monkeypatch.chdir(tmp_path)
    first = CliRunner().invoke(app, ["new", "my_flow"])
    second = CliRunner().invoke(app, ["new", "my_flow"])
    as_json = CliRunner().invoke(app, ["new", "other_flow", "--minimal", "--json"])

    assert first.exit_code == 0, first.output
    steps = [line.split("#")[0].strip() for line in first.stderr.splitlines()[1:]]
    assert steps == ["cd my_flow", "pytest", "pip install -e .", "jupyter lab notebooks"]
    assert first.stderr in FIRST_HOUR.read_text(encoding="utf-8")
    assert second.exit_code == 2
    assert "my_flow exists already" in second.stderr
    answer = json.loads(as_json.stdout)
    assert answer["folder"] == "other_flow"
    assert all((tmp_path / "other_flow" / each).is_file() for each in answer["files"])


@pytest.mark.docker
def test_compose_file_is_valid(tmp_path):
    """Docker Compose reads it: RabbitMQ, and a worker for each stage."""
    if shutil.which("docker") is None:
        pytest.skip("no docker")
    made = create_project("tide_gauge", tmp_path)

    read = subprocess.run(
        ["docker", "compose", "-f", "deploy/compose.yml", "config", "--format", "json"],
        cwd=made.folder, check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    services = json.loads(read.stdout)["services"]
    assert set(services) == {"rabbit", "parse", "convert"}
    assert services["convert"]["command"] == ["tide_gauge.converting:convert"]
