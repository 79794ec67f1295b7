"""Grids of parameters: what is refused before anything runs, and what runs beside each other."""

from __future__ import annotations

import itertools
import json
import re
import stat
import subprocess
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from mousetrap.check import GridResult, check_grid, parse_axes, read, read_results
from mousetrap.check.executed_notebook import SUMMARY_TYPE
from mousetrap.check.grid import default_folder
from mousetrap.check.grid_points import plan_points
from mousetrap.errors import CheckError, ParameterError, SettingsError
from mousetrap.settings import Settings

PARAMETERS = 'jobs: int = 5  # how many\nrate: float = 0.5\nname: str = "a"\nwet: bool = False'

# A point that goes on only when another one runs; the first two of a grid meet or neither ends.
MEET = """\
import os, pathlib, time
namespace = os.environ["MOUSETRAP_NAMESPACE"]
pathlib.Path(namespace).touch()
while len(list(pathlib.Path().glob("given-*"))) < 2:
    time.sleep(0.02)
"""

TELL = f"""\
from IPython.display import display
record = {{"sent": jobs, "done": jobs, "dead": 0, "lost": 0, "seconds": 0.5,
          "latency": {{"p50": 0.1, "p99": 0.2}}, "namespace": namespace}}
display({{{SUMMARY_TYPE!r}: record}}, raw=True)
"""

WAIT = "import threading\nthreading.Event().wait()"


@pytest.fixture
def no_kernel(monkeypatch):
    """Whatever starts a process fails the test."""

    def refuse(*_, **__):
        pytest.fail("a process was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)


@pytest.fixture
def notebook(tmp_path):
    return write_notebook(tmp_path / "check_it.ipynb", "1")


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """One grid of four points, two at a time, of which the last one fails; and what it told."""
    folder = tmp_path_factory.mktemp("grid")
    notebook = write_notebook(
        folder / "check_it.ipynb", MEET, TELL, "assert (jobs, name) != (7, 'b/c'), 'no luck'"
    )
    looks = []
    result = check_grid(
        notebook,
        {"jobs": ["3", "7"], "name": ["a", "b/c"]},
        {"rate": 1},
        parallel=2,
        environment={"MOUSETRAP_NAMESPACE": "given"},
        on_progress=looks.append,
    )
    return result, looks


# --- what a grid is ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["jobs=1"], {"jobs": ["1"]}),
        (["prefetch=1,10, 100 ", "jobs=5"], {"prefetch": ["1", "10", "100"], "jobs": ["5"]}),
        (['delays="0.2,1",5,"a ""b"""'], {"delays": ["0.2,1", "5", 'a "b"']}),
        (['name="",x'], {"name": ["", "x"]}),
        (["name=a=b"], {"name": ["a=b"]}),
    ],
)
def test_parse_axes_splits_at_commas(texts, expected):
    """A value with a comma, or an empty one, is quoted."""
    assert parse_axes(texts) == expected


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["jobs"], "grid 1 is not name=value"),
        (["jobs=1", "=5"], "grid 2 is not name=value"),
        (["amqp://me:hunter2@host/?x=1,2"], "grid 1 is not name=value"),
        (["jobs="], "a value of 'jobs' in the grid is empty"),
        (["jobs=1,,2"], "is empty"),
        (["jobs=1,2,"], "is empty"),
        (['name="a'], "cannot be separated"),
        (['name="a"b'], "cannot be separated"),
        (["jobs=1", "jobs=2"], "'jobs' is in the grid twice"),
    ],
)
def test_parse_axes_refuses_what_does_not_read_so(texts, says):
    """The error says what to write, and quotes no value, for it may be a secret."""
    with pytest.raises(ParameterError, match=says) as caught:
        parse_axes(texts)

    assert "hunter2" not in str(caught.value)


def test_plan_is_the_product_with_the_last_axis_fastest(notebook):
    """Every combination once, in the types of the notebook."""
    points = plan_points([notebook], {"jobs": ["1", "2"], "wet": ["yes", "no"]}, {"rate": "1"})

    assert [dict(point.parameters) for point in points] == [
        {"rate": 1.0, "jobs": jobs, "wet": wet} for jobs in (1, 2) for wet in (True, False)
    ]
    assert [point.name for point in points][:2] == ["jobs=1, wet=True", "jobs=1, wet=False"]


def test_plan_without_axes_is_a_point_per_notebook(tmp_path, notebook):
    """Several notebooks are a grid as well, each a point with its name."""
    other = write_notebook(tmp_path / "check_more.ipynb", "1")

    assert [point.name for point in plan_points([notebook, other], {}, {})] == [
        "check_it",
        "check_more",
    ]


HOSTILE = ["a/b", "..", "\x00\n", "\u202egnp", "x" * 300, "ü{name}", "CON", "a\\b", "<b>", "*?"]


def test_plan_names_files_that_every_file_system_takes(notebook):
    """Whatever a value is: letters, digits and a few signs, not too many, and no two alike."""
    names = [point.file for point in plan_points([notebook], {"name": HOSTILE, "jobs": [1, 2]}, {})]

    assert names[0] == "01-name=a_b,jobs=1.ipynb"
    assert all(re.fullmatch(r"\d\d-[A-Za-z0-9._=,+-]{1,80}\.ipynb", name) for name in names)
    assert len({name.lower() for name in names}) == len(names)


@pytest.mark.parametrize("within", ["", "test-7f3a", "x" * 28])
def test_plan_gives_each_point_a_namespace_that_settings_take(notebook, within):
    """All differ, begin with the one that is given, and leave queues a name."""
    points = plan_points([notebook], {"jobs": range(500)}, {}, within)
    namespaces = {point.namespace for point in points}

    assert len(namespaces) == 500
    assert all(Settings(namespace=each).namespace.startswith(within) for each in namespaces)


def test_plan_differs_from_run_to_run(notebook):
    """The same grid twice at the same time does not meet."""
    first, second = (plan_points([notebook], {}, {})[0].namespace for _ in range(2))

    assert first != second


@pytest.mark.parametrize("within", ["x" * 33, "no good"])
def test_plan_refuses_a_namespace_that_has_no_room(notebook, within):
    """A namespace within one that is too long would be cut, and meet another."""
    with pytest.raises(SettingsError, match=r"namespace is|shorten it"):
        plan_points([notebook], {"jobs": range(10)}, {}, within)


@pytest.mark.parametrize(
    ("axes", "parameters", "says"),
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
def test_grid_refuses_before_anything_runs(notebook, no_kernel, axes, parameters, says):
    """Every point is checked first; the last one may not turn out to be mistyped after an hour."""
    with pytest.raises(ParameterError, match=says) as caught:
        check_grid(notebook, axes, parameters)

    assert "hunter2" not in str(caught.value)
    assert not default_folder([notebook]).exists()


def test_grid_refuses_a_parameter_that_one_of_its_notebooks_lacks(tmp_path, notebook, no_kernel):
    """What is set is set in all of them."""
    other = write_notebook(tmp_path / "check_more.ipynb", "1", parameters="other: int = 1")

    with pytest.raises(ParameterError, match=r"check_more\.ipynb has no parameter 'jobs'"):
        check_grid([notebook, other], {"jobs": [1]})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"deadline": 0}, "deadline is 0"),
        ({"total_deadline": float("inf")}, "total_deadline is inf"),
        ({"parallel": 0}, "parallel is 0"),
        ({"parallel": 65}, "parallel is 65"),
        ({"folder": "file"}, "cannot be written"),
    ],
)
def test_grid_refuses_options_that_cannot_work(
    notebook, no_kernel, tmp_path, monkeypatch, options, says
):
    """Said at once, not after the first kernel."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")

    with pytest.raises(CheckError, match=says):
        check_grid(notebook, {"jobs": [1, 2]}, **options)


def test_grid_refuses_the_same_notebook_twice_and_none(notebook, no_kernel):
    """By whatever path."""
    with pytest.raises(ParameterError, match="given twice"):
        check_grid([notebook, notebook.parent / "." / "x" / ".." / notebook.name])
    with pytest.raises(ParameterError, match="no notebook"):
        check_grid([])


def test_grid_does_not_overwrite_a_notebook(tmp_path, no_kernel):
    """An executed copy is a copy, also where somebody calls a notebook like one."""
    notebook = write_notebook(tmp_path / "1-jobs=1.ipynb", "1")
    before = notebook.read_text()

    with pytest.raises(CheckError, match="would overwrite"):
        check_grid(notebook, {"jobs": [1]}, folder=tmp_path)

    assert notebook.read_text() == before


def test_grid_does_not_overwrite_what_others_wrote(notebook, tmp_path, no_kernel):
    """A folder with a page of its own, or with a folder where a copy goes, is left alone."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("mine")
    (tmp_path / "other" / "1-jobs=1.ipynb").mkdir(parents=True)

    with pytest.raises(CheckError, match="was not written by a check"):
        check_grid(notebook, {"jobs": [1]}, folder=tmp_path / "site")
    with pytest.raises(CheckError, match="cannot be replaced"):
        check_grid(notebook, {"jobs": [1]}, folder=tmp_path / "other")

    assert (tmp_path / "site" / "index.html").read_text() == "mine"


def test_grid_says_what_to_install(notebook, no_kernel, monkeypatch):
    """Once, not for each point."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(CheckError, match=r"pip install 'mousetrap-mq\[notebook\]'"):
        check_grid(notebook, {"jobs": [1, 2]})


# --- a grid that runs ----------------------------------------------------------------------------


def test_grid_runs_as_many_at_a_time_as_asked(grid):
    """The first two points wait for each other, and have met."""
    result, looks = grid

    assert [point.verdict for point in result][:2] == ["passed", "passed"]
    assert max(len(look.running) for look in looks) == 2


def test_grid_gives_each_point_its_parameters(grid):
    """What varies, what is the same, and the defaults of the rest, in their types."""
    result, _ = grid

    assert result.axes == ("jobs", "name")
    assert [dict(point.varying) for point in result] == [
        {"jobs": jobs, "name": name} for jobs in (3, 7) for name in ("a", "b/c")
    ]
    expected = {"jobs": 3, "rate": 1.0, "name": "b/c", "wet": False}
    assert result.points[1].check.parameters == expected


def test_grid_gives_each_point_its_namespace(grid):
    """The kernel sees it, all differ, and they are within the one that was set."""
    result, _ = grid

    seen = [point.check.summary["namespace"] for point in result]
    assert seen == [point.namespace for point in result]
    assert len(set(seen)) == 4
    assert all(each.startswith("given-") for each in seen)


def test_grid_goes_on_after_a_failure_and_names_it(grid):
    """One of four fails, with its cell and its error; the others have passed."""
    result, _ = grid

    *others, failed = result
    assert all(point.passed for point in others)
    assert not result.passed
    assert failed.verdict == "failed"
    assert failed.check.failing.number == 4
    assert failed.reason == "AssertionError: no luck"
    assert repr(result).startswith("<GridResult 3 of 4 points passed in ")


def test_grid_keeps_an_executed_copy_of_each_point(grid):
    """Each in a file that says which point it is, beside the report, for its owner only."""
    result, _ = grid

    names = {path.name for path in result.folder.iterdir()}
    assert names == {
        "1-jobs=3,name=a.ipynb", "2-jobs=3,name=b_c.ipynb", "3-jobs=7,name=a.ipynb",
        "4-jobs=7,name=b_c.ipynb", "index.html", "results.json", "junit.xml",
    }  # fmt: skip
    modes = {stat.S_IMODE(path.stat().st_mode) for path in result.folder.iterdir()}
    assert modes == {0o600}


def test_grid_copies_can_be_read_back_as_data(grid):
    """`read` gives the parameters, verdict and figures of a point, `read_results` of all."""
    result, _ = grid

    assert [read(point.check.output) for point in result] == [point.check for point in result]
    assert read_results(result.folder) == result
    assert read_results(result.folder / "results.json") == result


def test_grid_tells_how_far_it_is(grid):
    """Which points run, and in which cell; which have ended, each once."""
    _, looks = grid

    assert [len(look.ended) for look in looks] == sorted(len(look.ended) for look in looks)
    assert len(looks[-1].ended) == looks[-1].total == 4
    lines = {progress.line for look in looks for _, progress in look.running}
    assert lines & {"import os, pathlib, time", "jobs: int = 5  # how many", ""}


def test_grid_rows_are_flat(grid):
    """Ready for a DataFrame: what varies, the verdict, the figures."""
    result, _ = grid

    assert result.rows()[3] == {
        "jobs": 7, "name": "b/c", "verdict": "failed", "done": 7, "dead": 0, "lost": 0,
        "seconds": 0.5, "p50": 0.1, "p99": 0.2, "took": result.points[3].check.seconds,
    }  # fmt: skip


def test_grid_shows_itself_in_a_notebook(grid):
    """A table of all points, and where the page is."""
    result, _ = grid
    html = result._repr_html_()

    assert html.count("<tr>") == 5
    assert "3 of 4 points passed" in html
    assert str(result.page) in html


def test_grid_ends_at_its_deadline_and_says_which_points_did_not_run(tmp_path):
    """What runs is ended, what waits does not begin, and neither passes."""
    notebook = write_notebook(tmp_path / "check_it.ipynb", WAIT)

    result = check_grid(notebook, {"jobs": [1, 2, 3]}, parallel=2, total_deadline=20)

    assert [point.verdict for point in result] == ["failed", "failed", "not run"]
    assert all("longer than its deadline of 20 s" in point.check.error for point in result)
    assert result.ended == result.points[2].check.error
    assert "KeyboardInterrupt" in result.points[0].check.output.read_text()
    assert result.seconds < 20 + 8
    assert read_results(result.folder) == result
    assert (tmp_path / "_build" / ".gitignore").exists()


def test_grid_ends_on_ctrl_c_and_writes_its_report(tmp_path):
    """An interrupt of the caller ends every kernel, goes on upwards, and leaves the report."""
    notebook = write_notebook(
        tmp_path / "check_it.ipynb", "import os\nopen(f'{os.getpid()}.pid', 'w').close()", WAIT
    )

    stale = default_folder([notebook]) / "2-jobs=2.ipynb"
    stale.parent.mkdir(parents=True)
    stale.write_text("of an earlier grid")

    def press_ctrl_c(look):
        if any(progress.number == 3 for _, progress in look.running):
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


def test_grid_of_notebooks_runs_each(tmp_path):
    """A point that cannot even begin, for want of a kernel, does not stop its neighbour."""
    good = write_notebook(tmp_path / "check_good.ipynb", "1")
    bad = write_notebook(tmp_path / "check_bad.ipynb", "1", kernel="nobody-has-this")

    result = check_grid([bad, good], parallel=2, folder=tmp_path / "report")

    assert [point.verdict for point in result] == ["failed", "passed"]
    assert "no kernel named" in result.points[0].reason
    assert [row["notebook"] for row in result.rows()] == [str(bad), str(good)]
    assert {path.name for path in (tmp_path / "report").iterdir()} >= {"2-check_good.ipynb"}


# --- reading results -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"version": 2}', '{"version": 1, "points": 5}', "\udcff", "[" * 50_000],
    ids=range(7),
)
def test_read_results_refuses_what_is_none(tmp_path, content):
    """Any other file is refused in one sentence."""
    path = tmp_path / "results.json"
    path.write_bytes(content.encode(errors="surrogateescape"))

    with pytest.raises(CheckError, match="does not hold the results of a grid"):
        read_results(path)


def test_read_results_says_when_there_are_none(tmp_path):
    """A missing file is said to be missing."""
    with pytest.raises(CheckError, match="there is no"):
        read_results(tmp_path)


def test_results_follow_their_folder(grid, tmp_path):
    """A report that was moved, or downloaded from CI, still finds its executed copies."""
    result, _ = grid
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for path in result.folder.iterdir():
        (moved / path.name).write_bytes(path.read_bytes())

    assert [read(point.check.output).cells for point in read_results(moved)] == [4, 4, 4, 3]


def test_results_are_json_that_others_can_read(grid):
    """Plain values and strict JSON, with the verdict in words."""
    result, _ = grid
    told = json.loads((result.folder / "results.json").read_text(), parse_constant=pytest.fail)

    assert told["count"] == {"passed": 3, "failed": 1, "not run": 0}
    assert told["points"][3]["failing"]["number"] == 4
    assert told["points"][0]["summary"]["done"] == 3
    assert told["points"][0]["output"] == "1-jobs=3,name=a.ipynb"


def test_grid_result_is_a_plain_value():
    """It can be made without a run, for those who test against it."""
    result = GridResult((), (), Path("x"), "2026-11-25T07:00:00+00:00", 1.0, 1)

    assert result.passed
    assert len(result) == 0
    assert result.sentence() == "0 of 0 notebooks passed"


def is_gone(pid):
    """Whether the process ended; a zombie did, even if nobody asked for its exit code."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def write_notebook(path, *cells, parameters=PARAMETERS, kernel=None):
    """Write a notebook: a parameters cell, then the others."""
    first = new_code_cell(parameters)
    first.metadata["tags"] = ["parameters"]
    document = new_notebook(cells=[first, *map(new_code_cell, cells)])
    if kernel is not None:
        document.metadata["kernelspec"] = {"name": kernel, "display_name": kernel}
    nbformat.write(document, path)
    return path
