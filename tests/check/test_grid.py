"""`check_grid`: what is refused before a point runs, and points that run in parallel."""

from __future__ import annotations

import itertools
import json
import stat

import pytest
from support.notebook_files import WAIT_FOREVER, write_notebook
from support.processes import is_gone

from mousetrap.check import check_grid, read, read_results
from mousetrap.check.grid import default_folder
from mousetrap.errors import CheckError, ParameterError
from mousetrap.model.summary import SUMMARY_TYPE

PARAMETERS = 'jobs: int = 5  # how many\nrate: float = 0.5\nname: str = "a"\nwet: bool = False'

# The first two points wait for each other: they pass only if they run at the same time.
MEET = """\
import os, pathlib, time
namespace = os.environ["MOUSETRAP_NAMESPACE"]
pathlib.Path(namespace).touch()
until = time.monotonic() + 60
while len(list(pathlib.Path().glob("given-*"))) < 2:
    assert time.monotonic() < until
    time.sleep(0.02)
"""

SHOW_SUMMARY = f"""\
from IPython.display import display
summary = {{"sent": jobs, "done": jobs, "dead": 0, "lost": 0, "seconds": 0.5,
          "latency": {{"p50": 0.1, "p99": 0.2}}, "namespace": namespace}}
display({{{SUMMARY_TYPE!r}: summary}}, raw=True)
"""


@pytest.fixture
def notebook(tmp_path):
    """A notebook with the parameters of a grid."""
    return write_notebook(tmp_path / "check_it.ipynb", "1", parameters=PARAMETERS)


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """The result of a grid of four points, two at a time, of which the last fails; its progress."""
    folder = tmp_path_factory.mktemp("grid")
    notebook = write_notebook(
        folder / "check_it.ipynb",
        MEET,
        SHOW_SUMMARY,
        "assert (jobs, name) != (7, 'b/c'), 'no luck'",
        parameters=PARAMETERS,
    )
    reports = []
    result = check_grid(
        notebook,
        {"jobs": ["3", "7"], "name": ["a", "b/c"]},
        {"rate": 1},
        parallel=2,
        environment={"MOUSETRAP_NAMESPACE": "given"},
        on_progress=reports.append,
    )
    return result, reports


# --- before a point runs --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("axes", "parameters", "message"),
    [
        ({"job": [1]}, {}, "no parameter 'job'; did you mean 'jobs'"),
        ({"jobs": [1, "ten"]}, {}, "'jobs' is 'ten': it must be a whole number"),
        ({"jobs": [1]}, {"rat": 2}, "no parameter 'rat'"),
        ({"jobs": ["1", "01"]}, {}, "two values of 'jobs' in the grid are the same"),
        ({"rate": [1, 1.0]}, {}, "two values of 'rate'"),
        ({"jobs": []}, {}, "'jobs' has no values"),
        ({"jobs": 5}, {}, "give a list"),
        ({"name": "abc"}, {}, "give a list"),
        ({"jobs": [1]}, {"jobs": 1}, "'jobs' is both a parameter and in the grid"),
        ({"jobs": itertools.count()}, {}, "at most 1,000 are allowed"),
        ({"jobs": range(100), "rate": range(100)}, {}, "10,000 points, and at most 1,000 are"),
        ({"api_key": ["hunter2"]}, {}, "looks like a secret"),
        ({"name": ["amqp://me:hunter2@host/"]}, {}, "URL with a password"),
    ],
)
def test_grid_refuses_wrong_values_before_a_point_runs(
    notebook, no_kernel, axes, parameters, message
):
    """All points are checked before the first one runs."""
    with pytest.raises(ParameterError, match=message) as caught:
        check_grid(notebook, axes, parameters)

    assert "hunter2" not in str(caught.value)
    assert not default_folder([notebook]).exists()


def test_grid_refuses_a_parameter_that_one_of_its_notebooks_lacks(tmp_path, notebook, no_kernel):
    """A parameter is set in all notebooks."""
    other = write_notebook(tmp_path / "check_more.ipynb", "1", parameters="other: int = 1")

    with pytest.raises(ParameterError, match=r"check_more\.ipynb has no parameter 'jobs'"):
        check_grid([notebook, other], {"jobs": [1]})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"deadline": 0}, "deadline is 0"),
        ({"total_deadline": float("inf")}, "total_deadline is inf"),
        ({"parallel": 0}, "parallel is 0"),
        ({"parallel": 65}, "parallel is 65"),
        ({"folder": "file"}, "cannot be written"),
    ],
)
def test_grid_refuses_wrong_options(notebook, no_kernel, tmp_path, monkeypatch, options, message):
    """The error is raised before a kernel starts."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")

    with pytest.raises(CheckError, match=message):
        check_grid(notebook, {"jobs": [1, 2]}, **options)


def test_grid_refuses_the_same_notebook_twice_and_none(notebook, no_kernel):
    """Two paths can lead to the same notebook."""
    with pytest.raises(ParameterError, match="given twice"):
        check_grid([notebook, notebook.parent / "." / "x" / ".." / notebook.name])
    with pytest.raises(ParameterError, match="no notebook"):
        check_grid([])


def test_grid_does_not_overwrite_a_notebook(tmp_path, no_kernel):
    """A notebook can have the name that an executed copy would get."""
    notebook = write_notebook(tmp_path / "1-jobs=1.ipynb", "1", parameters=PARAMETERS)
    before = notebook.read_text()

    with pytest.raises(CheckError, match="would overwrite"):
        check_grid(notebook, {"jobs": [1]}, folder=tmp_path)

    assert notebook.read_text() == before


def test_grid_does_not_overwrite_files_that_are_not_its_own(notebook, tmp_path, no_kernel):
    """A page of another program, and a folder with the name of a copy, are kept."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("mine")
    (tmp_path / "other" / "1-jobs=1.ipynb").mkdir(parents=True)

    with pytest.raises(CheckError, match="was not written by a check"):
        check_grid(notebook, {"jobs": [1]}, folder=tmp_path / "site")
    with pytest.raises(CheckError, match="cannot be replaced"):
        check_grid(notebook, {"jobs": [1]}, folder=tmp_path / "other")

    assert (tmp_path / "site" / "index.html").read_text() == "mine"


def test_grid_says_what_to_install(notebook, no_kernel, monkeypatch):
    """The error is raised once, and not for each point."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(CheckError, match=r"pip install 'mousetrap-mq\[notebook\]'"):
        check_grid(notebook, {"jobs": [1, 2]})


# --- a grid that runs -----------------------------------------------------------------------------


def test_grid_runs_points_in_parallel(grid):
    """The first two points wait for each other, so they ran at the same time."""
    result, reports = grid

    assert [point.verdict for point in result][:2] == ["passed", "passed"]
    assert max(len(report.running) for report in reports) == 2


def test_grid_gives_each_point_its_parameters(grid):
    """A point has the values of the axes, the parameters, and the defaults of the rest."""
    result, _ = grid

    assert result.axes == ("jobs", "name")
    assert [dict(point.varying) for point in result] == [
        {"jobs": jobs, "name": name} for jobs in (3, 7) for name in ("a", "b/c")
    ]
    expected = {"jobs": 3, "rate": 1.0, "name": "b/c", "wet": False}
    assert result.points[1].check.parameters == expected


def test_grid_gives_each_point_its_namespace(grid):
    """The kernels see different namespaces, which begin with the one that was set."""
    result, _ = grid

    seen = [point.check.summary["namespace"] for point in result]
    assert seen == [point.namespace for point in result]
    assert len(set(seen)) == 4
    assert all(each.startswith("given-") for each in seen)


def test_grid_goes_on_after_a_failure_and_names_it(grid):
    """One of four points fails, with its cell and its error; the others pass."""
    result, _ = grid

    *others, failed = result
    assert all(point.passed for point in others)
    assert not result.passed
    assert failed.verdict == "failed"
    assert failed.check.failing.number == 5
    assert failed.reason == "AssertionError: no luck"
    assert repr(result).startswith("<GridResult 3 of 4 points passed in ")


def test_grid_keeps_an_executed_copy_of_each_point(grid):
    """The file name says which point it is; only the owner can read the files."""
    result, _ = grid

    names = {path.name for path in result.folder.iterdir()}
    assert names == {
        "1-jobs=3,name=a.ipynb", "2-jobs=3,name=b_c.ipynb", "3-jobs=7,name=a.ipynb",
        "4-jobs=7,name=b_c.ipynb", "index.html", "results.json", "junit.xml",
    }  # fmt: skip
    modes = {stat.S_IMODE(path.stat().st_mode) for path in result.folder.iterdir()}
    assert modes == {0o600}


def test_read_returns_the_result_of_each_point(grid):
    """`read` returns the result of a point, `read_results` that of the grid."""
    result, _ = grid

    assert [read(point.check.output) for point in result] == [point.check for point in result]
    assert read_results(result.folder) == result
    assert read_results(result.folder / "results.json") == result


def test_grid_reports_progress(grid):
    """The progress has the points that run with their cells, and each point that ended once."""
    _, reports = grid

    assert [len(report.ended) for report in reports] == sorted(
        len(report.ended) for report in reports
    )
    assert len(reports[-1].ended) == reports[-1].total == 4
    lines = {progress.line for report in reports for _, progress in report.running}
    assert lines & {"import os, pathlib, time", "jobs: int = 5  # how many", ""}


def test_grid_rows_are_flat(grid):
    """A row has what varies, the verdict and the figures: ready for a DataFrame."""
    result, _ = grid

    assert result.rows()[3] == {
        "jobs": 7, "name": "b/c", "verdict": "failed", "done": 7, "dead": 0, "lost": 0,
        "seconds": 0.5, "p50": 0.1, "p99": 0.2, "took": result.points[3].check.seconds,
    }  # fmt: skip


def test_grid_is_shown_as_a_table_in_a_notebook(grid):
    """The HTML has a row for each point, and the path of the page."""
    result, _ = grid
    html = result._repr_html_()

    assert html.count("<tr>") == 5
    assert "3 of 4 points passed" in html
    assert str(result.page) in html


def test_grid_ends_at_its_deadline_and_says_which_points_did_not_run(tmp_path):
    """Points that run are ended, the others do not start, and none of them passes."""
    notebook = write_notebook(tmp_path / "check_it.ipynb", WAIT_FOREVER, parameters=PARAMETERS)

    result = check_grid(notebook, {"jobs": [1, 2, 3]}, parallel=2, total_deadline=20)

    assert [point.verdict for point in result] == ["failed", "failed", "not run"]
    assert all("longer than its deadline of 20 s" in point.check.error for point in result)
    assert result.ended == result.points[2].check.error
    assert "KeyboardInterrupt" in result.points[0].check.output.read_text()
    assert result.seconds < 20 + 8
    assert read_results(result.folder) == result
    assert (tmp_path / "_build" / ".gitignore").exists()


def test_grid_ends_on_ctrl_c_and_writes_its_report(tmp_path):
    """A KeyboardInterrupt ends every kernel, leaves the report, and is raised again."""
    notebook = write_notebook(
        tmp_path / "check_it.ipynb",
        "import os\nopen(f'{os.getpid()}.pid', 'w').close()",
        WAIT_FOREVER,
        parameters=PARAMETERS,
    )

    stale = default_folder([notebook]) / "2-jobs=2.ipynb"
    stale.parent.mkdir(parents=True)
    stale.write_text("of an earlier grid")

    def press_ctrl_c(progress):
        if any(each.number == 4 for _, each in progress.running):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_grid(notebook, {"jobs": [1, 2]}, on_progress=press_ctrl_c)

    result = read_results(default_folder([notebook]))
    assert [point.verdict for point in result] == ["failed", "not run"]
    assert result.ended == result.points[0].check.error == "interrupted"
    assert result.page.exists()
    assert not stale.exists()
    [kernel] = tmp_path.glob("*.pid")
    assert is_gone(int(kernel.stem))


def test_grid_runs_the_other_notebooks_when_one_cannot_start(tmp_path):
    """A point without a kernel fails; the other point passes."""
    good = write_notebook(tmp_path / "check_good.ipynb", "1")
    bad = write_notebook(tmp_path / "check_bad.ipynb", "1", kernel="nobody-has-this")

    result = check_grid([bad, good], parallel=2, folder=tmp_path / "report")

    assert [point.verdict for point in result] == ["failed", "passed"]
    assert "no kernel named" in result.points[0].reason
    assert [row["notebook"] for row in result.rows()] == [str(bad), str(good)]
    assert {path.name for path in (tmp_path / "report").iterdir()} >= {"2-check_good.ipynb"}


def test_results_can_be_read_after_their_folder_was_moved(grid, tmp_path):
    """A report that was downloaded from CI finds its executed copies."""
    result, _ = grid
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for path in result.folder.iterdir():
        (moved / path.name).write_bytes(path.read_bytes())

    assert [read(point.check.output).cells for point in read_results(moved)] == [4, 4, 4, 3]


def test_results_are_strict_json(grid):
    """The file has plain values, and the verdict in words."""
    result, _ = grid
    document = json.loads((result.folder / "results.json").read_text(), parse_constant=pytest.fail)

    assert document["count"] == {"passed": 3, "failed": 1, "not run": 0}
    assert document["points"][3]["failing"]["number"] == 5
    assert document["points"][0]["summary"]["done"] == 3
    assert document["points"][0]["output"] == "1-jobs=3,name=a.ipynb"
