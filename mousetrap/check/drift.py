"""Compares definitions in a notebook with those of a package that they should be the same as.

A notebook marks such a definition by a comment above it, which every editor keeps:

    # same as mousetrap.run_processing_worker:process
    def summarise(places: list[Place]) -> Summary: ...

The two definitions are compared as syntax trees. Ignored is what does not change the result for
the caller: comments, layout, docstrings, the name in the first line, and the decorator `stage`,
which connects a function with its queues. All else is compared, with annotations and other
decorators, except that the ending ``, decorators aside`` of the mark ignores all decorators. A
difference is shown as a diff.

The code is only read, never run or imported.
"""

from __future__ import annotations

import ast
import difflib
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from mousetrap.check.parameters import read_notebook
from mousetrap.errors import Drifted

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

_MARK_PATTERN = re.compile(
    r"#\s*same as\s+(?P<module>[\w.]+)(?P<gap>\s*:\s*)(?P<name>[\w.]+)(?P<rest>.*)"
)
_ASIDE = ", decorators aside"


@dataclass(frozen=True)
class SameAsMark:
    """The comment ``# same as module:name`` above a definition in a notebook.

    `cell` counts all cells from 1. `source` is the source of the cell, `line` the line of the mark.
    """

    cell: int
    line: int
    module: str
    name: str
    decorators_aside: bool
    source: str

    def __str__(self) -> str:
        return f"cell {self.cell}, same as {self.module}:{self.name}"


def drift(
    source: str, module_source: str, name: str, *, line: int = 0, decorators_aside: bool = False
) -> str:
    """Compare the definition in *source* below *line* with *name* in *module_source*.

    Returns a unified diff from the package's to the notebook's, "" if they are the same. *name* can
    be dotted: ``Ledger.settle``.

    Raises:
        LookupError: one of them does not exist.
        SyntaxError: one of the sources is not Python.
    """
    ours, theirs = _definition_below(source, line), _definition_named(module_source, name)
    alike = [_normal(each, theirs.name, decorators_aside) for each in (theirs, ours)]
    if ast.dump(alike[0]) == ast.dump(alike[1]):
        return ""
    before, after = (ast.unparse(each).splitlines() for each in alike)
    return "\n".join(difflib.unified_diff(before, after, "package", "notebook", lineterm=""))


def refuse_drift(document: Any, path: Path) -> None:
    """Compare each marked definition in *document*, the notebook at *path*, with its package's.

    Raises:
        Drifted: one differs; the error names notebook, cell and function, shows the diff, and says
            what to do.
    """
    if problems := list(_problems(document, path)):
        raise Drifted("\n\n".join(problems))


def check_drift(notebook: str | Path) -> None:
    """Read *notebook* and do what `refuse_drift` does."""
    refuse_drift(read_notebook(notebook), Path(notebook))


def marks_in(cells: Iterable[tuple[int, str]]) -> Iterator[SameAsMark]:
    """Yield the marks in code cells, each given as (number, source).

    Raises:
        SyntaxError: a comment is clearly meant as a mark, but has another form.
    """
    for number, source in cells:
        if "same as" not in source:  # true for nearly all cells
            continue
        plain = _without_magics(source)
        for line, comment in _comment_lines(plain):
            found = _MARK_PATTERN.fullmatch(comment.rstrip())
            if found is None or not _is_dotted(found["module"]) or not _is_dotted(found["name"]):
                continue  # prose: # same as above: but slower
            if found["gap"] == ":" and found["rest"] in ("", _ASIDE):
                yield SameAsMark(number, line, found["module"], found["name"],
                           bool(found["rest"]), plain)  # fmt: skip
            elif found["gap"] == ":" or ("." in found["module"] and not found["rest"]):
                raise SyntaxError(
                    f"cell {number}: {comment.strip()!r} is not a mark: write it as "
                    f"`# same as package.module:function`; only `{_ASIDE}` may follow"
                )


def source_of(module: str, folder: Path) -> str:
    """Return the source of *module* as a kernel in *folder* would find it; nothing is imported.

    Raises:
        LookupError: there is no such module, or it has no Python source.
    """
    spec: ModuleSpec | None = None
    search = [str(folder), *sys.path]
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        name = ".".join(parts[:depth])
        spec = _find(name, search)
        if spec is None:
            raise LookupError(f"there is no module {name!r}")
        search = list(spec.submodule_search_locations or [])
    get_source = getattr(spec and spec.loader, "get_source", None)
    source = get_source(module) if get_source else None
    if source is None:
        raise LookupError(f"module {module!r} has no Python source")
    return str(source)


def _problems(document: Any, path: Path) -> Iterator[str]:
    cells = [
        (number, cell.source)
        for number, cell in enumerate(document.cells, start=1)
        if cell.cell_type == "code"
    ]
    try:
        marks = list(marks_in(cells))
    except SyntaxError as error:
        yield f"{path}, {error}"
        return
    for mark in marks:
        what = f"{path}, {mark}"
        try:
            difference = drift(
                mark.source,
                source_of(mark.module, path.absolute().parent),
                mark.name,
                line=mark.line,
                decorators_aside=mark.decorators_aside,
            )
        except (LookupError, SyntaxError) as error:
            yield f"{what}: {error.args[0]}; correct the mark, or remove it"
            continue
        if difference:
            yield (
                f"{what}: it is not the same any more. Make one of the two equal to the other: "
                f"write the cell to the package (mousetrap extract --replace), or copy it from "
                f"there; or remove the mark\n{difference}"
            )


def _find(name: str, path: list[str]) -> ModuleSpec | None:
    # Not importlib.util.find_spec: it imports the parent package.
    if spec := PathFinder.find_spec(name, path):
        return spec
    for finder in sys.meta_path:  # editable installs have their own finders
        if spec := finder.find_spec(name, path if "." in name else None, None):
            return spec
    return None


def _is_dotted(word: str) -> bool:
    return all(part.isidentifier() for part in word.split("."))


def _without_magics(source: str) -> str:
    """Replace IPython's magics and shell commands by empty lines: line numbers stay the same."""
    try:
        ast.parse(source)
    except (SyntaxError, ValueError):
        return re.sub(r"(?m)^[%!].*$|^.*\?$", "", source)
    return source  # % at the beginning of a line can be part of a string


def _comment_lines(source: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that are only a comment, as Python's tokenizer reads them."""
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT and token.line.lstrip().startswith("#"):
                yield token.start[0], token.string
    except (tokenize.TokenError, SyntaxError):
        return  # the rest is not Python; comments before it have been yielded


def _parsed(source: str, what: str) -> ast.Module:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError) as error:  # ValueError: a null byte
        raise SyntaxError(f"{what} is not plain Python ({error})") from None


def _definition_below(source: str, line: int) -> Definition:
    """Return the first statement of a cell below *line*, if it is a definition."""
    for node in _parsed(source, "the cell").body:
        if _first_line(node) > line and isinstance(node, Definition):
            return node
        if (node.end_lineno or 0) > line:
            break  # another statement follows, or the mark is inside a statement
    raise LookupError("the mark is not directly above a function or class")


def _first_line(node: ast.stmt) -> int:
    nodes: list[ast.stmt | ast.expr] = [node, *getattr(node, "decorator_list", [])]
    return min(each.lineno for each in nodes)


def _definition_named(source: str, name: str) -> Definition:
    scope: ast.Module | Definition = _parsed(source, "the module")
    for part in name.split("."):
        found = [node for node in _definitions(scope.body) if node.name == part]
        if not found:
            raise LookupError(f"there is no function or class {name!r} in that module")
        scope = found[-1]  # the last one, as at run time: after @overload, or in an else branch
    assert isinstance(scope, Definition)
    return scope


def _definitions(body: Iterable[ast.stmt]) -> Iterator[Definition]:
    """Yield the definitions in a scope, with those in an ``if``, ``try`` or ``with``."""
    for node in body:
        if isinstance(node, Definition):
            yield node
        elif isinstance(node, (ast.If, ast.Try, ast.With)):
            inner = [getattr(node, field, []) for field in ("body", "orelse", "finalbody")]
            inner += [handler.body for handler in getattr(node, "handlers", [])]
            for each in inner:
                yield from _definitions(each)


class _Normalizer(ast.NodeTransformer):
    """Removes docstrings, and replaces the name *own* by *name* where a definition calls itself."""

    def __init__(self, own: str, name: str) -> None:
        self._own = own
        self._name = name

    def visit(self, node: ast.AST) -> Any:
        node = self.generic_visit(node)
        if isinstance(node, Definition) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        if isinstance(node, ast.Name) and node.id == self._own:  # a recursive call
            node.id = self._name
        if isinstance(node, ast.Constant):
            node.kind = None  # u"x" is "x"
        return node


def _normal(node: Definition, name: str, decorators_aside: bool) -> Definition:
    """Return *node* with the name of the package's definition, without the ignored parts."""
    plain: Definition = _Normalizer(node.name, name).visit(node)
    plain.name = name
    plain.decorator_list = [
        each for each in plain.decorator_list if not decorators_aside and not _is_stage(each)
    ]
    return plain


def _is_stage(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    word = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    return word == "stage"
