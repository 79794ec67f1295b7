"""The pytest plugin in a user's project: one run of all its tests, and what it reports."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from support import verdicts
from support.notebook_files import write_notebook
from support.plugin_project import run_pytest, write_project
from support.processes import is_gone

from mousetrap.check import read
from mousetrap.job_queue import depths


class Report:
    """The output of one run of pytest in the project, and the files that it left."""

    def __init__(self, root: Path, output: str) -> None:
        self.root = root
        self.books = root / "books"
        self.output = output
        lines = (self.books / "seen.jsonl").read_text().splitlines()
        self.seen = [json.loads(line) for line in lines]
        self.outcomes = {
            found[2]: found[1] for found in re.finditer(r"^(PASSED|FAILED) (\S+)", output, re.M)
        }

    def of(self, name: str) -> str:
        """Return the part of the output about the failure of *name*."""
        found = re.search(rf"\n_+ \S*{re.escape(name)} _+\n(.*?)(?=\n_{{5}}|\n={{5}})",
                          self.output, re.DOTALL)  # fmt: skip
        assert found, self.output
        return found[1]

    def queues_of(self, name: str) -> str:
        return self.of(name).partition("- queues -")[2]


@pytest.fixture(scope="module")
def report(broker, tmp_path_factory):
    """One run of all tests in two processes, which many tests inspect: kernels are slow."""
    root = write_project(tmp_path_factory.mktemp("foreign"))
    done = run_pytest(root, "--nbmake", "-n", "2", "-rA", "--color=no", **broker.environment())
    return Report(root, done.stdout + done.stderr)


def test_project_has_an_item_for_each_set_of_parameters(report):
    """A set is named by its values, or as the table says."""
    assert report.outcomes == {
        "books/check_lengths.ipynb::words=3": "PASSED",
        "books/check_lengths.ipynb::words=2-poison=1": "FAILED",
        "books/check_lengths.ipynb::word=3": "FAILED",
        "books/check_lengths.ipynb::api_key=hidden": "FAILED",
        "books/named.ipynb::quick": "PASSED",
        "books/plain.ipynb::plain.ipynb": "PASSED",
        "books/fails.ipynb::fails.ipynb": "FAILED",
        "books/hangs.ipynb::hangs.ipynb": "FAILED",
        "books/drifted.ipynb::drifted.ipynb": "PASSED",
        "books/drifted.ipynb::drift": "FAILED",
        "test_lengths.py::test_flow": "PASSED",
        "test_lengths.py::test_outside": "PASSED",
        "test_lengths.py::test_that_fails": "FAILED",
    }


def test_output_names_the_broker(report, broker):
    """The output says once which broker the tests use."""
    address = f"{broker.settings.host}:{broker.settings.port}"

    assert re.search(rf"^mousetrap: using the broker external: .* on {address}$",
                     report.output, re.M)  # fmt: skip


def test_each_notebook_has_its_own_namespace(report, broker):
    """Kernels of checks and of nbmake have the broker and a namespace in their environment."""
    namespaces = [seen["MOUSETRAP_NAMESPACE"] for seen in report.seen]

    assert len(set(namespaces)) == len(namespaces) == 6
    assert {seen["MOUSETRAP_BROKER"] for seen in report.seen} == {"external"}
    assert {seen["RABBITMQ_URL"] for seen in report.seen} == {
        broker.settings.to_environment()["RABBITMQ_URL"]
    }


def test_notebooks_leave_no_queue_behind(report, broker):
    """Queues that were declared in a namespace are deleted, after a failure, too."""
    names = [f"{seen['MOUSETRAP_NAMESPACE']}.words.dead" for seen in report.seen]

    assert depths(names, broker.settings.replace(namespace="")) == [None] * len(names)


def test_failed_check_shows_cell_source_and_error(report):
    """The report has the cell, its source, the error, and the path of the executed copy."""
    text = report.of("check_lengths.ipynb::words=2-poison=1")

    assert "books/check_lengths.ipynb failed in cell 4 (In [5]): assert len(drain(" in text
    assert "assert not poison, 'there was poison'" in text
    assert "AssertionError: there was poison" in text
    assert "Executed copy: books/_build/check_lengths.words=2-poison=1.ipynb" in text


@pytest.mark.parametrize("name", ["check_lengths.ipynb::words=2-poison=1", "fails.ipynb"])
def test_failed_notebook_shows_its_queues(report, name):
    """They are those of the time when the cell failed: the worker still consumes.

    For the items of nbmake this depends on its internals; if they change, this test fails.
    """
    text = report.queues_of(name)

    assert re.search(r"^words +0 +1$", text, re.M)
    assert re.search(r"^words\.dead +1 +0$", text, re.M)
    assert re.search(r"in words\.dead, all of 1:\n  \w{8}  attempt 2, 8 bytes, failed with ", text)
    assert "ValueError: no luck at amqp://me:********@host/" in text


def test_failed_test_shows_its_queues(report):
    """The report of a failed test with a namespace has the queues."""
    text = report.queues_of("test_that_fails")

    assert re.search(r"^words\.dead +1 +0$", text, re.M)


def test_reports_show_neither_bodies_nor_secrets(report):
    """No body of a message is in a report, and no secret is in the name of an item."""
    queues = re.findall(r"- queues -+\n(.*?)(?=\n_{5}|\n={5})", report.output, re.DOTALL)

    assert len(queues) == 4
    assert not [text for text in queues if "poison" in text or "letmein" in text or "\x1b" in text]
    assert "hunter2" not in report.output


def test_refused_parameters_start_no_kernel(report):
    """The error is that of `mousetrap check`, and there is no executed copy."""
    assert "has no parameter 'word'; did you mean 'words'?" in report.of("ipynb::word=3")
    assert "parameter 'api_key' looks like a secret" in report.of("api_key=hidden")
    assert not list((report.books / "_build").glob("*word=3.ipynb"))
    assert "queues" not in report.of("ipynb::word=3")


def test_executed_copies_are_kept(report):
    """There is one for each check, and for each item of nbmake that failed."""
    built = {path.name: read(path) for path in (report.books / "_build").glob("*.ipynb")}

    assert {name for name, result in built.items() if result.passed} == {
        "check_lengths.words=3.ipynb", "named.quick.ipynb"
    }  # fmt: skip
    assert {name for name, result in built.items() if not result.passed} == {
        "check_lengths.words=2-poison=1.ipynb", "fails.ipynb", "hangs.ipynb"
    }  # fmt: skip
    assert built["check_lengths.words=3.ipynb"].parameters["words"] == 3


def test_notebook_of_nbmake_has_a_deadline(report):
    """At the deadline the cell is interrupted, and the report shows where it was."""
    text = report.of("hangs.ipynb")

    assert "hangs.ipynb took longer than its deadline of 10 s" in text
    assert "threading.Event().wait()" in text
    assert "mousetrap has declared no queue here" in text


@pytest.mark.parametrize("name", ["forgotten.pid", "hanging.pid"])
def test_notebook_of_nbmake_leaves_no_process_behind(report, name):
    """Its child processes are ended, after success and after failure."""
    assert is_gone(int((report.books / name).read_text()))


def test_drifted_notebook_fails_with_a_diff(report):
    """The comparison is an item of its own; the notebook itself passes."""
    text = report.of("drifted.ipynb::drift")

    assert "books/drifted.ipynb, cell 2, same as lengths:measure: it is not the same" in text
    assert "-    return len(word)\n+    return len(word) + 1" in text


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such sockets")
def test_kernel_of_nbmake_has_sockets_of_its_own(tmp_path, broker):
    """Kernels that start at the same time can get the same port, and then one of them dies."""
    asks = "from ipykernel.connect import get_connection_info\nimport json"
    notebook = write_notebook(
        tmp_path / "a.ipynb", f"{asks}\nassert json.loads(get_connection_info())['ip'][0] == '/'"
    )

    assert verdicts.of_nbmake(tmp_path, broker.environment()) == {notebook: None}
