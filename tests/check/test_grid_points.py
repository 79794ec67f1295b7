"""`mousetrap.check.grid_points`: the axes of a grid, and the points that they make."""

from __future__ import annotations

import re

import pytest
from support.notebook_files import write_notebook

from mousetrap.check import parse_axes
from mousetrap.check.grid_points import plan_points
from mousetrap.errors import ParameterError, SettingsError
from mousetrap.settings import Settings

PARAMETERS = 'jobs: int = 5  # how many\nrate: float = 0.5\nname: str = "a"\nwet: bool = False'
HOSTILE = ["a/b", "..", "\x00\n", "\u202egnp", "x" * 300, "ü{name}", "CON", "a\\b", "<b>", "*?"]


@pytest.fixture
def notebook(tmp_path):
    """A notebook with the parameters of a grid."""
    return write_notebook(tmp_path / "check_it.ipynb", "1", parameters=PARAMETERS)


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
    """A value that contains a comma, or is empty, is in double quotes."""
    assert parse_axes(texts) == expected


@pytest.mark.parametrize(
    ("texts", "message"),
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
def test_parse_axes_refuses_text_of_another_form(texts, message):
    """The error shows the form, and contains no value, which can be a secret."""
    with pytest.raises(ParameterError, match=message) as caught:
        parse_axes(texts)

    assert "hunter2" not in str(caught.value)


def test_plan_is_the_product_with_the_last_axis_fastest(notebook):
    """Each combination occurs once, in the types of the notebook."""
    points = plan_points([notebook], {"jobs": ["1", "2"], "wet": ["yes", "no"]}, {"rate": "1"})

    assert [dict(point.parameters) for point in points] == [
        {"rate": 1.0, "jobs": jobs, "wet": wet} for jobs in (1, 2) for wet in (True, False)
    ]
    assert [point.name for point in points][:2] == ["jobs=1, wet=True", "jobs=1, wet=False"]


def test_plan_without_axes_is_a_point_per_notebook(tmp_path, notebook):
    """Without axes a point has the name of its notebook."""
    other = write_notebook(tmp_path / "check_more.ipynb", "1", parameters=PARAMETERS)

    assert [point.name for point in plan_points([notebook, other], {}, {})] == [
        "check_it",
        "check_more",
    ]


def test_plan_names_files_that_every_file_system_accepts(notebook):
    """A file name has letters, digits and a few signs, has a maximum length, and is unique."""
    names = [point.file for point in plan_points([notebook], {"name": HOSTILE, "jobs": [1, 2]}, {})]

    assert names[0] == "01-name=a_b,jobs=1.ipynb"
    assert all(re.fullmatch(r"\d\d-[A-Za-z0-9._=,+-]{1,80}\.ipynb", name) for name in names)
    assert len({name.lower() for name in names}) == len(names)


@pytest.mark.parametrize("namespace", ["", "test-7f3a", "x" * 28])
def test_plan_gives_each_point_a_valid_namespace(notebook, namespace):
    """All differ, begin with the given one, and are short enough for Settings."""
    points = plan_points([notebook], {"jobs": range(500)}, {}, namespace)
    names = {point.namespace for point in points}

    assert len(names) == 500
    assert all(Settings(namespace=each).namespace.startswith(namespace) for each in names)


def test_plan_has_other_namespaces_in_each_run(notebook):
    """The same grid can run twice at the same time."""
    first, second = (plan_points([notebook], {}, {})[0].namespace for _ in range(2))

    assert first != second


@pytest.mark.parametrize("namespace", ["x" * 33, "no good"])
def test_plan_refuses_a_namespace_that_is_too_long(notebook, namespace):
    """A namespace that was cut could be that of another point."""
    with pytest.raises(SettingsError, match=r"namespace is|shorten it"):
        plan_points([notebook], {"jobs": range(10)}, {}, namespace)
