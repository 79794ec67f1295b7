"""`mousetrap.pytest_plugin.table`: the sets of parameters with which a notebook is tested."""

from __future__ import annotations

import pytest

from mousetrap.errors import SettingsError
from mousetrap.pytest_plugin.table import Plan, plan_of, read_plans, set_name


def test_set_name_has_the_values_of_the_set():
    """It can be part of a file name and of a command line; a secret is hidden."""
    assert set_name({"jobs": 500, "failure_rate": 0.1}) == "jobs=500-failure_rate=0.1"
    assert set_name({}) == "defaults"
    assert set_name({"path": "a/b::c d[1]"}) == "path=a_b__c_d_1_"
    assert set_name({"password": "hunter2"}) == "password=hidden"
    assert set_name({"url": "amqp://me:hunter2@host/"}) == "url=hidden"


def test_set_name_is_cut_and_stays_unique():
    """Two sets that differ only at the end have different names."""
    one, other = (set_name({"text": "x" * 100 + end}) for end in "ab")

    assert len(one) == len(other) == 80
    assert one != other


def test_plan_is_made_of_both_tables():
    """A key in pyproject.toml takes precedence over the notebook's metadata."""
    metadata = {"deadline": 60, "parameters": {"quick": {"jobs": 1}}}

    assert plan_of({}, {}, "a.ipynb") == Plan()
    assert plan_of({"deadline": 5}, metadata, "a.ipynb") == Plan({"quick": {"jobs": 1}}, 5.0)
    assert plan_of({"parameters": [{}]}, metadata, "a.ipynb") == Plan({"defaults": {}}, 60.0)


@pytest.mark.parametrize(
    ("text", "plans"), [(None, None), ("[tool.other]", None), ("[tool.mousetrap]", {})]
)
def test_plans_are_none_without_a_table_of_mousetrap(tmp_path, text, plans):
    """A table, even an empty one, says that the notebooks use mousetrap."""
    if text is not None:
        (tmp_path / "pyproject.toml").write_text(text)

    assert read_plans(tmp_path) == plans


def test_read_plans_refuses_a_file_that_is_not_toml(tmp_path):
    """pytest does not read the file if its options are in another one."""
    (tmp_path / "pyproject.toml").write_text("[tool.mousetrap")

    with pytest.raises(SettingsError, match=r"pyproject\.toml cannot be read"):
        read_plans(tmp_path)


def test_plan_ignores_the_metadata_of_an_executed_copy():
    """What a check writes there is not a table."""
    facts = {"notebook": "a.ipynb", "deadline": 300.0, "error": None, "failing": None}

    assert plan_of({}, facts, "copy.ipynb") == Plan()


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"parmeters": {}}, "no 'parmeters'; did you mean 'parameters'"),
        ({"deadline": 0}, "a number of seconds above 0"),
        ({"deadline": "soon"}, "a number of seconds above 0"),
        ({"deadline": True}, "a number of seconds above 0"),
        ({"parameters": 5}, "must be a table"),
        ({"parameters": {"quick": 5}}, "parameters.quick must be a table"),
        ({"parameters": [{}, {}]}, "two sets of parameters have the same name"),
        ({"parameters": {"a b": {}}}, "cannot be called 'a b'"),
        ({"parameters": {"drift": {}}}, "cannot be called 'drift'"),
        (5, "must be a table"),
    ],
)
def test_plan_refuses_a_wrong_entry(entry, reason):
    """The error says where the entry is, and what is allowed."""
    with pytest.raises(SettingsError, match=reason) as caught:
        plan_of(entry, {}, "pyproject.toml: here")

    assert "pyproject.toml: here" in str(caught.value)
