"""What an import costs, and what the package shows of itself."""

import ast
import subprocess
import sys
from functools import cache

import pytest
from test_architecture import FILES, ORDER, PACKAGE, name, place, tree

import mousetrap

OUTER = set(ORDER[ORDER.index("notebook") :]) | {"broker", "runs", "sink"}
HEAVY = {"papermill", "IPython", "matplotlib", "nbformat", "faker", "jinja2"}


@cache
def words():
    """Every folder of the package and every module at its top, by name."""
    return {place(path) for path in FILES} - {"__init__"}


def modules(folders):
    """Return the dotted name of every module in these folders, or at the top."""
    names = [name(path).removesuffix(".py").replace("/", ".") for path in FILES]
    return [
        f"mousetrap.{each}".removesuffix(".__init__")
        for each in names
        if each.partition(".")[0] in folders
    ]


def test_importing_brings_in_nothing_heavy():
    """No module imports papermill, IPython or faker, but for the outer folders."""
    program = f"""
import sys
from importlib import import_module
for module in {modules(words() - OUTER)}:
    import_module(module)
print(*sorted({HEAVY} & {{name.partition(".")[0] for name in sys.modules}}))
"""
    assert run_python(program) == ""


def test_importing_the_package_brings_in_nothing_at_all():
    """A public name is imported when it is first used; pytest finds our plugin and uses none."""
    program = """
import sys, mousetrap
assert not [name for name in sys.modules if name.startswith("mousetrap.")]
assert not {"pika", "msgspec"} & set(sys.modules)
mousetrap.Publisher
print(*sorted({"pika", "msgspec"} & set(sys.modules)))
"""
    assert run_python(program) == "msgspec pika"


def test_importing_check_brings_in_no_papermill():
    """`mousetrap --help` does not wait for Jupyter."""
    program = f"""
import sys, mousetrap.check
print(*sorted({HEAVY | {"psutil", "jinja2"}} & {{name.partition(".")[0] for name in sys.modules}}))
"""
    assert run_python(program) == ""


def test_importing_touches_neither_network_nor_processes():
    """Every module can be imported where there is no broker, no network and nothing installed."""
    program = f"""
import socket, subprocess, threading
from importlib import import_module
def refuse(*_, **__):
    raise AssertionError("at import")
socket.socket.connect = socket.create_connection = refuse
subprocess.Popen.__init__ = refuse
for module in {modules(words() - {"__main__"})}:
    import_module(module)
print(*(thread.name for thread in threading.enumerate()))
"""
    assert run_python(program) == "MainThread"


def test_every_public_name_exists():
    """The table of contents lists what can be imported, and nothing twice."""
    public = getattr(mousetrap, "__all__", [])

    assert len(public) == len(set(public))
    assert all(hasattr(mousetrap, name) for name in public)


def test_every_public_name_has_one_home():
    """What type checkers read and what is imported when asked for are the same."""
    read = {
        alias.name: node.module.removeprefix("mousetrap.")
        for node in ast.walk(tree(PACKAGE / "__init__.py"))
        if isinstance(node, ast.ImportFrom) and node.module.startswith("mousetrap.")
        for alias in node.names
    }

    assert read == mousetrap._HOME_OF
    assert set(read) == set(mousetrap.__all__)


def test_no_module_has_the_name_of_a_public_name():
    """`mousetrap.stage` is the decorator whatever was imported first: no module is called so."""
    assert set(mousetrap.__all__).isdisjoint(words())


def test_modules_are_there_without_being_imported_by_name():
    """`mousetrap.job_queue.depths` works after `import mousetrap`; a typing error does not."""
    assert run_python("import mousetrap; print(mousetrap.job_queue.depths.__name__)") == "depths"
    with pytest.raises(AttributeError, match="'mousetrap' has no attribute 'job_queeu'"):
        mousetrap.job_queeu  # noqa: B018 -- looking is what is tested
    assert set(mousetrap.__all__) <= set(dir(mousetrap))


def test_everything_public_has_a_docstring():
    """Modules, classes, functions and methods say what they do, unless a leading _ hides them."""
    silent = [
        f"{path.relative_to(PACKAGE)}:{node.name}"
        for path in FILES
        for node in public_nodes(tree(path))
        if ast.get_docstring(node) is None
    ]

    assert silent == []


def test_every_module_has_a_docstring():
    """A module says what lives in it."""
    assert [name(path) for path in FILES if ast.get_docstring(tree(path)) is None] == []


def public_nodes(scope):
    """Yield the public classes and functions in *scope* and in its public classes."""
    for node in scope.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name.startswith("_"):
                continue
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public_nodes(node)


def run_python(program):
    """Run *program* in a fresh interpreter, from which nothing was imported yet."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
