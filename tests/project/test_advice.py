"""Advice can be followed: each command, option, variable, function and extra in a text exists.

The texts are the string constants of the package: errors, hints, help, and docstrings.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pkgutil import resolve_name

import pytest
import typer
from test_architecture import FILES, PACKAGE, name, tree

import mousetrap
from mousetrap import errors, settings
from mousetrap.cli import app

ROOT = PACKAGE.parent
FILLED = "…"  # stands for a value that the program fills in
VERBS = {  # of sentences whose subject is mousetrap
    "and", "cannot", "declares", "embedded", "gets", "has", "is", "opens", "or", "raises", "sink",
    "started", "would",
    "import",  # of a module that is written
}  # fmt: skip
VARIABLE = re.compile(r"\b(?:MOUSETRAP|RABBITMQ)_[A-Z_]+\b")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
OF_OTHER_PROGRAMS = re.compile(r"(?:docker|rabbitmqctl|pytest|coverage|jupyter) [^`;)]*")
CALL = re.compile(r"(?<![\w.])((?:[a-zA-Z_]\w*\.)*[a-z_]\w*)\(")
KEYWORD = re.compile(r"(?:([a-z_]+)\([^()]*)?(?<![\w.{-])([a-z_]+)=(?=\.\.\.|[\w'\"\[])")
NOT_PROSE = re.compile(r"</|/>|<\?|^<|SELECT |PRAGMA |\\x1b|\nimport ")
NOT_OURS = {  # what else may be named, and whose it is
    "--detached": "rabbitmq-server", "--share": "the style sheet of the report", "write": "a file",
    "tag": "msgspec", "exclude": "pydantic", "delays": "a notebook's parameter, as an example",
}  # fmt: skip
CLASSES = {"run": mousetrap.Run, "faults": mousetrap.Faults}  # by the name of such a variable


def texts_of(tree: ast.Module, *, docstrings: bool) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each string constant that has several words."""
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and ast.get_docstring(node) is not None
    }
    parts = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(getattr(part, "value", FILLED)) if isinstance(part, ast.Constant)
                           else FILLED for part in node.values)  # fmt: skip
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
            if id(node) in parts or (id(node) in documentation and not docstrings):
                continue
        else:
            continue
        if len(text.split()) > 1:
            yield node.lineno, text


def commands(app: typer.Typer = app) -> dict[str, dict[str, set[str]]]:
    """Return the options of each command, by its words: ``{"dead list": {"--json", ...}}``."""
    found = {}

    def walk(command, words):
        found[" ".join(words)] = {
            option for each in command.params for option in (*each.opts, *each.secondary_opts)
        } | {"--help"}
        for word, child in getattr(command, "commands", {}).items():
            walk(child, [*words, word])

    walk(typer.main.get_command(app), [])
    return found


@cache
def public_parameters() -> dict[str, set[str]]:
    """Return the parameters of each public function, class and method, by its last name."""
    found: dict[str, set[str]] = {}

    def add(word, value):
        try:
            parameters = set(inspect.signature(value).parameters)
            if "options" in parameters:  # of mousetrap.run, for Run
                parameters |= set(inspect.signature(mousetrap.Run).parameters)
        except (TypeError, ValueError):
            parameters = set()
        found.setdefault(word, set()).update(parameters)

    for word in mousetrap.__all__:
        value = getattr(mousetrap, word)
        add(word, value)
        for attribute in dir(value) if inspect.isclass(value) else ():
            if not attribute.startswith("_"):
                add(attribute, getattr(value, attribute))
    return found


COMMANDS = commands()
READ = (
    settings._KNOWN
    | {"RABBITMQ_URL", settings.PASSWORD_FILE}
    | set(VARIABLE.findall((ROOT / "deploy" / "development.yml").read_text()))
)
PACKAGE = "mousetrap"  # a command that installs it must not be in any file, not even in this one
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def wrong_commands(text: str) -> Iterator[str]:
    """Yield what *text* says of a ``mousetrap`` command that does not exist, or of an option."""
    own = OF_OTHER_PROGRAMS.sub("", text)
    for found in re.finditer(r"(?<![\w./-])mousetrap ([a-z]+)([^`;)\n]*)", own):
        first, rest = found.groups()
        second = (rest.split() or [""])[0]
        words = f"{first} {second}" if f"{first} {second}" in COMMANDS else first
        is_group = any(each.startswith(f"{first} ") for each in COMMANDS)
        if words not in COMMANDS:
            if first not in VERBS:
                yield found[0]
        elif is_group and words == first and second.isalpha():
            yield found[0]
        else:
            yield from (
                f"mousetrap {words} {option}"
                for option in OPTION.findall(rest)
                if option not in COMMANDS[words]
            )
    every = set().union(*COMMANDS.values())
    yield from (option for option in OPTION.findall(own) if option not in every | set(NOT_OURS))


def wrong_variables(text: str) -> Iterator[str]:
    """Yield the variables in *text* that are not read."""
    yield from (each for each in VARIABLE.findall(text) if each not in READ)


def wrong_names(text: str) -> Iterator[str]:
    """Yield the ``mousetrap.name`` in *text* that cannot be imported."""
    for found in re.findall(r"(?<![\w./-])(mousetrap(?:\.[A-Za-z_]\w*)+)", text):
        try:
            resolve_name(found)
        except (ImportError, AttributeError):
            yield found


def wrong_calls(text: str) -> Iterator[str]:
    """Yield the calls in *text* of functions, and with arguments, that do not exist."""
    if NOT_PROSE.search(text):
        return
    known = public_parameters()
    for called in CALL.findall(text):
        owner, _, last = called.rpartition(".")
        exists = last in known if owner not in CLASSES else hasattr(CLASSES[owner], last)
        if owner.split(".")[0] == "mousetrap" or last in NOT_OURS or hasattr(builtins, last):
            continue
        if not exists:
            yield f"{called}()"
    every = set().union(*known.values()) | set(NOT_OURS)
    for called, keyword in KEYWORD.findall(text):
        if keyword not in known.get(called, every):
            yield f"{called}({keyword}=)"


def wrong_packages(text: str) -> Iterator[str]:
    """Yield the names in *text* under which pip does not find this project or an extra of it."""
    for package, extras in re.findall(r"\b(mousetrap(?:-mq)?)\[([\w,-]+)\]", text):
        if package != "mousetrap-mq" or not set(extras.split(",")) <= set(EXTRAS):
            yield f"{package}[{extras}]"
    if re.search(rf"pip install ['\"]?{PACKAGE}(?!-mq)", text):
        yield f"pip install {PACKAGE}"


@pytest.mark.parametrize(
    ("find", "docstrings"),
    [
        (wrong_commands, True),
        (wrong_variables, True),
        (wrong_names, False),
        (wrong_calls, False),
        (wrong_packages, True),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_a_text_advises_exists(find, docstrings):
    """A user who follows an error or a help text never meets "no such command" or a silent no."""
    found = [
        f"{name(path)}:{line}: {wrong}"
        for path in FILES
        for line, text in texts_of(tree(path), docstrings=docstrings)
        for wrong in find(text)
    ]

    assert found == []


WAY_OUT = re.compile(r"[:;(]|\b(?:give|use|set|must|try|wait)\b|…$")  # a value may have it, too
ABOUT_A_MESSAGE = {"UndecodableMessage", "WrongType", "Malformed"}  # the reason of a dead letter
OURS = {"TimeoutError"} | {
    word for word, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.MousetrapError)
} - ABOUT_A_MESSAGE  # fmt: skip


def errors_without_way_out(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each error of ours that says only what has happened."""
    for node in ast.walk(module):
        call = node.exc if isinstance(node, ast.Raise) else None
        if not (isinstance(call, ast.Call) and call.args and ast.unparse(call.func) in OURS):
            continue
        argument = ast.Module([ast.Expr(call.args[0])], [])
        _, text = next(texts_of(argument, docstrings=True), (0, ""))  # none: of a variable
        if text and not WAY_OUT.search(text):
            yield node.lineno, text


def test_each_error_says_what_to_do():
    """After what has happened, a colon or a semicolon, and what the user can do now."""
    found = [
        f"{name(path)}:{line}: {text}"
        for path in FILES
        for line, text in errors_without_way_out(tree(path))
    ]

    assert found == []


@pytest.mark.parametrize(
    ("text", "is_found"),
    [("the queue {1} is full", True), ("the queue {1} is full: drain it", False)],
)
def test_an_error_that_only_complains_is_found(text, is_found):
    """The function above tells the two kinds of text apart."""
    module = ast.parse(f"raise RunError(f'{text}')")

    assert bool(list(errors_without_way_out(module))) == is_found


WRONG = [
    (wrong_commands, "delete it (mousetrap delete start_fetch)"),
    (wrong_commands, "take them out: `mousetrap drain q --all`"),
    (wrong_commands, "look at them (mousetrap dead show q)"),
    (wrong_commands, "overwrite it with --force"),
    (wrong_variables, "raise MOUSETRAP_TIMEOUT"),
    (wrong_names, "declare it (mousetrap.queues.declare)"),
    (wrong_calls, "give send(..., stage=...)"),
    (wrong_calls, "send them with run.publish(jobs)"),
    (wrong_packages, f"pip install '{PACKAGE}[postgres]'"),
    (wrong_packages, f"pip install '{PACKAGE}-mq[sqlite]'"),
]


@pytest.mark.parametrize(("find", "text"), WRONG)
def test_advice_that_cannot_be_followed_is_found(find, text):
    """Each function above finds the kind of mistake that it is for."""
    module = ast.parse(f"raise Error(f'''{text} {{1}}''')")
    [(_, read)] = texts_of(module, docstrings=False)

    assert list(find(read)) != []
