"""Which program this process is, and what people call it."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from mousetrap.runtime.environment import is_kernel, program_name


def test_program_name_of_a_kernel_is_its_notebook(monkeypatch):
    """VS Code sets a variable of the notebook, Jupyter one of the environment, papermill none."""
    shell = SimpleNamespace(kernel=None, user_ns={})
    monkeypatch.setattr("mousetrap.runtime.environment.ipython_shell", lambda: shell)
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    assert program_name() == "a notebook"
    monkeypatch.setenv("JPY_SESSION_NAME", "work/one.ipynb")
    assert program_name() == "one.ipynb"
    shell.user_ns["__vsc_ipynb_file__"] = "C:\\work\\two.ipynb"
    assert program_name() == "two.ipynb"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["/opt/bin/mousetrap", "work", "fetch"], "mousetrap work"),
        (["/x/mousetrap/__main__.py", "work"], "mousetrap work"),
        (["/x/mousetrap/__main__.py", "--help"], "mousetrap"),
        (["/x/pytest/__main__.py"], "pytest"),
        (["C:\\jobs\\train.py"], "train.py"),
        (["-c"], "python"),
        ([""], "python"),
        ([], "python"),
    ],
)
def test_program_name_is_the_name_that_people_use(monkeypatch, arguments, name):
    """Outside a kernel it is the script, the package or our own command."""
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr("mousetrap.runtime.environment.is_kernel", lambda: False)

    assert program_name() == name


def test_this_process_is_no_kernel():
    """pytest runs in plain Python."""
    assert not is_kernel()
