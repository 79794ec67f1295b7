"""Run the steps of a CI job on this machine: ``python tests/run_workflow.py ci.yml linux``.

The job runs in a clean clone of the last commit. Each ``run:`` is executed by bash as GitHub does
it. The actions that the workflows use are replaced: checkout by the clone, setup-python by the
interpreter that runs this program, upload-artifact by a copy into the folder of the results. An
expression or an action that this program does not know is an error.

``--matrix python=3.13 --matrix broker=local`` chooses a point of the matrix, by default the first
value of each axis. It needs PyYAML.
"""

from __future__ import annotations

import argparse
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = ROOT / ".github" / "workflows"
ALWAYS = "${{ !cancelled() }}"
EXPRESSION = re.compile(r"\$\{\{ *(.*?) *\}\}")


class Job:
    """A job of a workflow, at one point of its matrix, run in *folder*."""

    def __init__(self, workflow: dict[str, Any], name: str, point: dict[str, str], folder: Path):
        self.workflow = workflow
        self.job = workflow["jobs"][name]
        self.folder = folder
        axes = self.job.get("strategy", {}).get("matrix", {})
        self.matrix = {axis: str(point.get(axis, values[0])) for axis, values in axes.items()}
        self.failed: list[str] = []
        for each in ("clone", "artifacts", "temp"):
            (folder / each).mkdir()
        for each in ("summary.md", "path"):
            (folder / each).touch()

    def run(self) -> list[str]:
        """Run the steps; return the names of those that failed."""
        for number, step in enumerate(self.job["steps"], start=1):
            name = step.get("name") or step.get("uses") or f"step {number}"
            condition = step.get("if")
            if condition not in (None, ALWAYS):
                raise ValueError(f"{name}: unknown condition {condition}")
            if self.failed and condition is None:
                print(f"== skipped: {name}", flush=True)
                continue
            print(f"== {name}", flush=True)
            is_done = self.use(step) if "uses" in step else self.execute(step)
            if not is_done:
                print(f"== failed: {name}", flush=True)
                self.failed.append(name)
        return self.failed

    def use(self, step: dict[str, Any]) -> bool:
        """Do here what an action does on GitHub."""
        action = step["uses"].partition("@")[0]
        options = {key: self.filled(str(value)) for key, value in step.get("with", {}).items()}
        if action == "actions/checkout":
            command = ["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), "clone"]
            return subprocess.run(command, cwd=self.folder, check=False).returncode == 0
        if action == "actions/setup-python":
            found = ".".join(map(str, sys.version_info[:2]))
            wanted = options["python-version"]
            print(f"   Python {found}" + f", in place of {wanted}" * (found != wanted))
            return True
        if action == "actions/upload-artifact":
            return self.upload(options)
        raise ValueError(f"unknown action {action}")

    def upload(self, options: dict[str, str]) -> bool:
        """Copy what the paths of an artifact name; return False if none is there."""
        target = self.folder / "artifacts" / options["name"]
        found = 0
        for pattern in options["path"].split():
            for each in glob.glob(str(self.folder / "clone" / pattern)):
                path = Path(each)
                copy = target / path.relative_to(self.folder / "clone")
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copytree(path, copy) if path.is_dir() else shutil.copy(path, copy)
                found += 1
        return bool(found) or options.get("if-no-files-found") != "error"

    def execute(self, step: dict[str, Any]) -> bool:
        """Run the script of a step, with the variables of workflow, job and step."""
        variables = {"CI": "true", "GITHUB_STEP_SUMMARY": str(self.folder / "summary.md"),
                     "GITHUB_PATH": str(self.folder / "path"),
                     "RUNNER_TEMP": str(self.folder / "temp")}  # fmt: skip
        for level in (self.workflow, self.job, step):
            pairs = level.get("env", {}).items()
            variables |= {key: self.filled(str(value)) for key, value in pairs}
        added = (self.folder / "path").read_text().split("\n")
        folders = [*reversed(added), str(Path(sys.executable).parent), os.environ["PATH"]]
        variables["PATH"] = os.pathsep.join(filter(None, folders))
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c"]
        left_out = ("PYTHONPATH", "VIRTUAL_ENV", "PYTEST_CURRENT_TEST", "MOUSETRAP_", "RABBITMQ_")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(left_out)}
        done = subprocess.run(
            [*command, self.filled(step["run"])], cwd=self.folder / "clone",
            env=inherited | variables, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        return done.returncode == 0

    def filled(self, text: str) -> str:
        """Return *text* with the values of its expressions, which are those of the matrix."""

        def value(found: re.Match[str]) -> str:
            kind, _, name = found[1].partition(".")
            if kind != "matrix" or name not in self.matrix:
                raise ValueError(f"unknown expression {found[0]}")
            return self.matrix[name]

        return EXPRESSION.sub(value, text)


def main() -> int:
    """Run a job; print what failed, the page of the run, and where everything is."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("workflow", help="a file of .github/workflows")
    parser.add_argument("job", help="the name of a job in it")
    parser.add_argument("--matrix", action="append", default=[], metavar="AXIS=VALUE")
    parser.add_argument("--folder", type=Path, help="new; default: a temporary one, which is kept")
    arguments = parser.parse_args()
    workflow = yaml.safe_load((WORKFLOWS / arguments.workflow).read_text(encoding="utf-8"))
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="mousetrap-workflow-"))
    folder.mkdir(parents=True, exist_ok=True)
    point = dict(each.split("=", 1) for each in arguments.matrix)
    job = Job(workflow, arguments.job, point, folder.resolve())
    failed = job.run()
    print((folder / "summary.md").read_text(encoding="utf-8"))
    print(f"clone, artifacts and summary: {folder}\nfailed: {', '.join(failed) or 'nothing'}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
