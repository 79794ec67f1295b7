import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mousetrap

PACKAGE = Path(mousetrap.__file__).parent

EDGES = {
    "run", "sender", "lease", "progress", "notebook", "broker", "check", "doctor", "cli", "extract",
    "faults", "pytest_plugin", "processes", "plot", "bench", "send", "slot", "settling", "health",
    "runs", "flows", "worker", "fault_injection", "__main__",
}  # fmt: skip
HEAVY = {"papermill", "IPython", "matplotlib", "nbformat", "faker"}


def files_of(word):
    """The files of a module, which may be a folder."""
    return sorted((PACKAGE / word).rglob("*.py")) or [PACKAGE / f"{word}.py"]


def words():
    """Every module directly in the package, by the one word that names it."""
    found = {path.stem for path in PACKAGE.glob("*.py")}
    return (found | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}) - {"__init__"}


def names_imported_by(word):
    """Dotted names that the module imports anywhere, also inside functions."""
    names = set()
    for path in files_of(word):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path} has a relative import: write the full name"
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def words_imported_by(word):
    """The modules of ours that the module imports."""
    ours = (name.split(".") for name in names_imported_by(word) if name.startswith("mousetrap."))
    return {parts[1] for parts in ours} & words()


def test_importing_brings_in_nothing_heavy():
    """`import mousetrap`, and every module but the edges, costs no papermill, IPython or faker."""
    inner = sorted(words() - EDGES)
    program = f"""
import sys, mousetrap
for word in {inner}:
    __import__(f"mousetrap.{{word}}")
print(*sorted({HEAVY} & {{name.partition(".")[0] for name in sys.modules}}))
"""
    assert run_python(program) == ""


def test_importing_the_package_brings_in_nothing_at_all():
    """What somebody asks for is imported then; pytest, which looks at our plugin, asks nothing."""
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
import socket, subprocess, sys, threading
def refuse(*_, **__):
    raise AssertionError("at import")
socket.socket.connect = socket.create_connection = refuse
subprocess.Popen.__init__ = refuse
for word in {sorted(words() - {"__main__"})}:
    __import__(f"mousetrap.{{word}}")
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
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    read = {
        alias.name: node.module.removeprefix("mousetrap.")
        for node in ast.walk(tree)
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
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in public_nodes(ast.parse(path.read_text(encoding="utf-8")))
        if ast.get_docstring(node) is None
    ]

    assert silent == []


def test_every_module_has_a_docstring():
    """A module says what lives in it."""
    for path in sorted(PACKAGE.rglob("*.py")):
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


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
