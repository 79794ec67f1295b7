"""The order of the folders, and who may touch pika, clocks, chance and threads.

Everything is computed from the imports that the files contain: those inside functions and those
for type checkers count, too.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import mousetrap

PACKAGE = Path(mousetrap.__file__).parent

# A folder, or a module at the top, imports only what stands above it in this list.
ORDER = [
    "errors", "runtime", "display", "settings", "embedded_broker", "model", "amqp", "worker",
    "job_queue", "flows", "broker", "runs", "sink",
    # the tutorial's bricks
    "fetch_data", "process_data", "start_fetch", "run_fetch_worker", "run_processing_worker",
    "notebook", "fault_injection", "doctor", "check", "extract", "scaffold", "pytest_plugin", "cli",
    "__main__",
]  # fmt: skip
ALLOWED = {("settings", "model/topology.py")}  # a setting is read as the type that topology has
TEMPLATES = PACKAGE / "scaffold" / "project"  # files of another project, which has its own tests
FILES = sorted(each for each in PACKAGE.rglob("*.py") if not each.is_relative_to(TEMPLATES))

PIKA = ("amqp/",)
OUTSIDE = {  # modules that read clocks, make random numbers or threads without `runtime`, and why
    "runtime/": "it is the place",
    "embedded_broker/clock.py": "the server imports nothing of ours: this is its default clock",
    "embedded_broker/randomness.py": "and this its default source of random names",
    "embedded_broker/server.py": "starts the one thread that the server runs in",
    "broker/node_supervisor.py": "a program of its own, which runs on the standard library alone",
}
FORBIDDEN = re.compile(
    r"^\s*(?:import|from) (?:time|random|uuid|secrets|threading|queue)\b"
    r"|\bdatetime\.(?:now|today|utcnow)\b|\bos\.urandom\b|\bdate\.today\b"
)


def name(path: Path) -> str:
    """Return the path within the package, as ``model/message.py``."""
    return path.relative_to(PACKAGE).as_posix()


def place(path: Path) -> str:
    """Return the folder that the file is in, or the module's name if it is at the top."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


@cache
def imports(path: Path) -> tuple[Path, ...]:
    """Return the files of the package that this file imports anywhere."""
    found = []
    for node in ast.walk(tree(path)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import: write the full name"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found += [file for each in names if (file := file_of(each)) not in (None, path)]
    return tuple(dict.fromkeys(found))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def file_of(dotted: str) -> Path | None:
    """Return the file of the package that an imported name comes from; the package itself is none.

    A public name of the package comes from where `mousetrap` itself gets it.
    """
    parts = dotted.split(".")
    if parts[0] != "mousetrap" or len(parts) == 1:
        return None
    if len(parts) == 2 and (home := mousetrap._HOME_OF.get(parts[1])):
        parts = ["mousetrap", *home.split(".")]
    for end in range(len(parts), 1, -1):
        base = PACKAGE.joinpath(*parts[1:end])
        for file in (base.with_suffix(".py"), base / "__init__.py"):
            if file.is_file():
                return file
    return None


def test_every_folder_has_its_place_in_the_order():
    """A new folder, or a new module at the top, says what it may import."""
    assert {place(path) for path in FILES} - {"__init__"} == set(ORDER)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_point_upwards(path):
    """A file imports only from its own folder and from those above it."""
    if place(path) == "__init__":
        return
    above = ORDER[: ORDER.index(place(path)) + 1]
    below = [
        name(each)
        for each in imports(path)
        if place(each) not in above and (place(path), name(each)) not in ALLOWED
    ]

    assert below == []


def reached_from(path: Path) -> set[Path]:
    """Return all files that this one imports, straight or through others."""
    found: set[Path] = set()
    ahead = [path]
    while ahead:
        new = set(imports(ahead.pop())) - found
        found |= new
        ahead += new
    return found


def test_no_files_import_each_other_in_a_circle():
    """There is an order in which each file comes after all that it imports."""
    reached = {path: reached_from(path) for path in FILES}

    assert sorted(name(path) for path in FILES if path in reached[path]) == []


def test_the_embedded_broker_imports_nothing_else_of_the_package():
    """It could be a package of its own: it needs the standard library only."""
    for path in FILES:
        if place(path) == "embedded_broker":
            assert {place(each) for each in imports(path)} <= {"embedded_broker"}, path


def test_only_amqp_imports_pika():
    """The rest of the package does not know pika's classes and errors."""
    for path in FILES:
        if not name(path).startswith(PIKA):
            assert not re.search(r"^\s*(?:import|from) pika\b", path.read_text("utf-8"), re.M), path


@pytest.mark.parametrize("path", FILES, ids=name)
def test_time_chance_and_threads_come_from_runtime(path):
    """A simulation can replace them: nobody else reads a clock, draws a number or makes a lock."""
    if name(path).startswith(tuple(OUTSIDE)):
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if FORBIDDEN.search(line)] == []


def test_no_file_is_longer_than_400_lines_and_no_function_than_60():
    """What grows past that wants to be two."""
    long = {
        name(path): n for path in FILES if (n := len(path.read_text("utf-8").splitlines())) > 400
    }
    functions = {
        f"{name(path)}:{node.name}": node.end_lineno - node.lineno + 1
        for path in FILES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno + 1 > 60
    }

    assert long == {}
    assert functions == {}
