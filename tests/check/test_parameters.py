"""`mousetrap.check.parameters`: what a notebook declares, and which values a check refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.notebook_files import write_notebook

from mousetrap.check import Parameter, check, default_output, parameters_of, parse_parameters
from mousetrap.check.parameters import convert_parameters
from mousetrap.errors import ParameterError

PARAMETERS = """\
# what a person may set
jobs: int = 500  # how many jobs to send
rate: float = 0.5
queue: str = "a=b"  # a name
wet = False
start = -1
limit: int = 2 * 60
both: "int | None" = None
"""


def test_skip_slow_imports_prevents_the_import_of_rfc3987_syntax(tmp_path):
    """jsonschema ignores a package that it cannot import; this stand-in prints when imported."""
    (tmp_path / "rfc3987_syntax.py").write_text("print('loaded')")
    load = "from contextlib import suppress\nwith suppress(ImportError):\n    import rfc3987_syntax"
    light = "from mousetrap.check.parameters import skip_slow_imports\nskip_slow_imports()\n"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}

    def output_of(code):
        command = [sys.executable, "-c", code]
        return subprocess.check_output(command, env=environment, text=True, timeout=60)

    assert (output_of(load), output_of(light + load)) == ("loaded\n", "")


def test_parameters_of_reads_names_types_defaults_and_help(tmp_path, no_kernel):
    """The type is that of the annotation, else that of the default; the help is the comment."""
    notebook = write_notebook(tmp_path / "a.ipynb", parameters=PARAMETERS)

    assert parameters_of(notebook) == [
        Parameter("jobs", "int", 500, "how many jobs to send"),
        Parameter("rate", "float", 0.5),
        Parameter("queue", "str", "a=b", "a name"),
        Parameter("wet", "bool", False),
        Parameter("start", "int", -1),
        Parameter("limit", "int", "2 * 60"),
        Parameter("both", None, None),
    ]


def test_parameters_of_is_empty_without_a_parameters_cell(tmp_path):
    """A notebook does not have to have parameters."""
    assert parameters_of(write_notebook(tmp_path / "a.ipynb", "1 + 1")) == []


def test_parameters_of_refuses_a_cell_that_is_not_python(tmp_path):
    """A parameters cell with a syntax error is an error, and is not skipped."""
    notebook = write_notebook(tmp_path / "a.ipynb", parameters="jobs: int = = 5")

    with pytest.raises(ParameterError, match="not plain Python"):
        parameters_of(notebook)


def test_parse_parameters_splits_at_the_first_equals_sign():
    """A value can contain an equals sign, and can be empty."""
    assert parse_parameters(["jobs=5", "queue=a=b", "name="]) == {
        "jobs": "5",
        "queue": "a=b",
        "name": "",
    }


@pytest.mark.parametrize("pair", ["jobs", "=5", "a b=5", "amqp://me:hunter2@host/?x=1", ""])
def test_parse_parameters_refuses_text_that_is_not_a_pair(pair):
    """The error shows the form, and does not contain the text, which can be a secret."""
    with pytest.raises(ParameterError, match="write it as jobs=500") as caught:
        parse_parameters([pair])

    assert "hunter2" not in str(caught.value)


def test_parse_parameters_refuses_a_name_given_twice():
    """It is unknown which of the two values is meant."""
    with pytest.raises(ParameterError, match="'jobs' is given twice"):
        parse_parameters(["jobs=1", "jobs=2"])


def test_check_refuses_an_unknown_parameter(tmp_path, no_kernel):
    """The error suggests a similar name and lists the parameters of the notebook."""
    notebook = write_notebook(tmp_path / "a.ipynb", parameters=PARAMETERS)

    with pytest.raises(ParameterError) as caught:
        check(notebook, {"job": "7"})

    assert "no parameter 'job'; did you mean 'jobs'?" in str(caught.value)
    assert "rate, queue" in str(caught.value)
    assert not default_output(notebook).exists()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("jobs", "ten", "a whole number"),
        ("jobs", "1.5", "a whole number"),
        pytest.param("jobs", "9" * 5000, "a whole number", id="long text"),
        ("jobs", "", "a whole number"),
        ("jobs", 1.0, "a whole number"),
        ("jobs", True, "a whole number"),
        ("jobs", None, "a whole number"),
        pytest.param("jobs", 10**5000, "a whole number", id="long number"),
        ("rate", "nan", "a number"),
        ("rate", "inf", "a number"),
        ("rate", float("nan"), "a number"),
        pytest.param("rate", 10**400, "a number", id="overflow"),
        ("rate", True, "a number"),
        ("wet", "maybe", "true or false"),
        ("wet", 1, "true or false"),
        ("queue", 5, "text"),
        ("queue", "\udcff", "text"),
    ],
)
def test_check_refuses_a_mistyped_value(tmp_path, no_kernel, name, value, expected):
    """The error names the parameter, the value and the expected type."""
    notebook = write_notebook(tmp_path / "a.ipynb", parameters=PARAMETERS)

    with pytest.raises(ParameterError, match=rf"'{name}' is .*must be {expected}") as caught:
        check(notebook, {name: value})

    assert len(str(caught.value)) < 200


def test_check_refuses_a_value_for_a_parameter_without_type(tmp_path, no_kernel):
    """The error says that the parameter needs an annotation."""
    notebook = write_notebook(tmp_path / "a.ipynb", parameters=PARAMETERS)

    with pytest.raises(ParameterError, match=r"'both' has no type.*annotate it"):
        check(notebook, {"both": "5"})


@pytest.mark.parametrize(
    "name",
    ["password", "RABBITMQ_PASSWORD", "passwd", "dbPassword", "rabbitmq_pass", "api_key", "apikey",
     "token", "accessToken", "client_secret", "credentials", "private_key", "auth"],
)  # fmt: skip
def test_check_refuses_a_parameter_with_the_name_of_a_secret(tmp_path, no_kernel, name):
    """Parameters are saved in the executed notebook; the error suggests an environment variable."""
    notebook = write_notebook(tmp_path / "a.ipynb", parameters=f"jobs = 5\n{name}: str = ''")

    with pytest.raises(ParameterError, match="environment") as caught:
        check(notebook, {name: "hunter2"})

    assert name in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_check_refuses_a_url_with_a_password(tmp_path, no_kernel):
    """A password in a URL is a secret, too; the error does not contain it."""
    notebook = write_notebook(tmp_path / "a.ipynb", parameters="url: str = ''")

    with pytest.raises(ParameterError, match="URL with a password") as caught:
        check(notebook, {"url": "amqp://me:hunter2@host/"})

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("line", ["password = 'hunter2'", "url = 'amqp://me:hunter2@host/'"])
def test_check_refuses_a_secret_among_the_defaults(tmp_path, no_kernel, line):
    """A notebook that contains a secret is refused, even if the parameter is not set."""
    notebook = write_notebook(tmp_path / "a.ipynb", parameters=line)

    with pytest.raises(ParameterError, match=r"default of parameter.*os\.environ") as caught:
        check(notebook)

    assert "hunter2" not in str(caught.value)


def test_check_does_not_quote_a_mistyped_secret(tmp_path, no_kernel):
    """A number can have the name of a secret, but the error does not contain a wrong value."""
    notebook = write_notebook(tmp_path / "a.ipynb", parameters="token: int = 5")

    with pytest.raises(ParameterError, match="must be a whole number") as caught:
        check(notebook, {"token": "hunter2"})

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", ["compass", "keyboard", "passes", "bypass_rate", "author"])
def test_check_accepts_a_name_that_contains_the_word_of_a_secret(name):
    """Only whole words count."""
    declared = [Parameter(name, "str", "x")]

    assert convert_parameters({name: "y"}, declared, Path("a.ipynb")) == {name: "y"}


def test_check_refuses_parameters_without_a_parameters_cell(tmp_path, no_kernel):
    """papermill would insert them at the top, where the notebook overwrites them."""
    notebook = write_notebook(tmp_path / "a.ipynb", "jobs = 5")

    with pytest.raises(ParameterError, match="no cell tagged 'parameters', so 'jobs'"):
        check(notebook, {"jobs": 7})
