"""Is what the notebook shows still what the package does?

A notebook says so by a comment above the definition, which people can read and no editor loses:

    # same as mousetrap.run_processing_worker:process
    def summarise(places: list[Place]) -> Summary: ...

Then the two are compared as Python reads them. Set aside is what does not change what the function
does for its caller: comments, layout, docstrings, the name in the first line, and the decorator
`stage`, which binds a function to its queues. Everything else counts, annotations and other
decorators too, unless the mark ends in ``, decorators aside``. What has drifted is shown as a diff.

Nothing here runs or imports what it reads.
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

_MARK = re.compile(r"#\s*same as\s+(?P<module>[\w.]+)(?P<gap>\s*:\s*)(?P<name>[\w.]+)(?P<rest>.*)")
_ASIDE = ", decorators aside"


@dataclass(frozen=True)
class SameAsMark:
    """What a notebook claims: the definition in *cell* below the mark is *module*:*name*.

    `cell` counts all cells from 1; `source` is the cell's, `line` that of the mark in it.
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

    Returns a unified diff from the package's to the notebook's, "" when they are the same. *name*
    may be dotted: ``Ledger.settle``.

    Raises:
        LookupError: one of them is not there.
        SyntaxError: one of the sources is not Python.
    """
    ours, theirs = _definition_below(source, line), _definition_named(module_source, name)
    alike = [_normal(each, theirs.name, decorators_aside) for each in (theirs, ours)]
    if ast.dump(alike[0]) == ast.dump(alike[1]):
        return ""
    before, after = (ast.unparse(each).splitlines() for each in alike)
    return "\n".join(difflib.unified_diff(before, after, "package", "notebook", lineterm=""))


def refuse_drift(document: Any, path: Path) -> None:
    """Compare whatever *document*, the notebook at *path*, says is the same as in a package.

    Raises:
        Drifted: it is not; names notebook, cell and function, shows the diff and the way out.
    """
    if problems := list(_problems(document, path)):
        raise Drifted("\n\n".join(problems))


def check_drift(notebook: str | Path) -> None:
    """Like `refuse_drift`, for a notebook that was not read yet."""
    refuse_drift(read_notebook(notebook), Path(notebook))


def marks_in(cells: Iterable[tuple[int, str]]) -> Iterator[SameAsMark]:
    """Find the marks in code cells, each given as (number, source).

    Raises:
        SyntaxError: a comment that can only be meant for a mark is not written as one.
    """
    for number, source in cells:
        if "same as" not in source:  # nearly all of them
            continue
        plain = _without_magics(source)
        for line, comment in _comment_lines(plain):
            found = _MARK.fullmatch(comment.rstrip())
            if found is None or not _is_dotted(found["module"]) or not _is_dotted(found["name"]):
                continue  # prose: # same as above: but slower
            if found["gap"] == ":" and found["rest"] in ("", _ASIDE):
                yield SameAsMark(number, line, found["module"], found["name"],
                           bool(found["rest"]), plain)  # fmt: skip
            elif found["gap"] == ":" or ("." in found["module"] and not found["rest"]):
                raise SyntaxError(
                    f"cell {number}: {comment.strip()!r} is no mark: write it as "
                    f"`# same as package.module:function`, and nothing after it but `{_ASIDE}`"
                )


def source_of(module: str, folder: Path) -> str:
    """Return the source of *module* as a kernel in *folder* would find it, importing nothing.

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
            yield f"{what}: {error.args[0]}; correct the mark, or take it away"
            continue
        if difference:
            yield (
                f"{what}: it is not the same any more. Bring one of the two in line with the "
                f"other, or take the mark away\n{difference}"
            )


def _find(name: str, path: list[str]) -> ModuleSpec | None:
    # Not importlib.util.find_spec: that imports the parent package, with all it does.
    if spec := PathFinder.find_spec(name, path):
        return spec
    for finder in sys.meta_path:  # editable installs bring finders of their own
        if spec := finder.find_spec(name, path if "." in name else None, None):
            return spec
    return None


def _is_dotted(word: str) -> bool:
    return all(part.isidentifier() for part in word.split("."))


def _without_magics(source: str) -> str:
    """Blank out what IPython knows and Python does not; the lines keep their numbers."""
    try:
        ast.parse(source)
    except (SyntaxError, ValueError):
        return re.sub(r"(?m)^[%!].*$|^.*\?$", "", source)
    return source  # a line in a text may well begin with %


def _comment_lines(source: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that are nothing but a comment, by Python's own reading: no strings."""
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT and token.line.lstrip().startswith("#"):
                yield token.start[0], token.string
    except (tokenize.TokenError, SyntaxError):
        return  # what comes after is not Python; whether a mark stands before it is known


def _parsed(source: str, what: str) -> ast.Module:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError) as error:  # ValueError: a null byte
        raise SyntaxError(f"{what} is not plain Python ({error})") from None


def _definition_below(source: str, line: int) -> Definition:
    """Return the definition at the top level of a cell that stands below *line*."""
    for node in _parsed(source, "the cell").body:
        if _first_line(node) > line and isinstance(node, Definition):
            return node
        if (node.end_lineno or 0) > line:
            break  # something else stands there, or the mark stands inside of something
    raise LookupError("the mark does not stand right above a function or class")


def _first_line(node: ast.stmt) -> int:
    nodes: list[ast.stmt | ast.expr] = [node, *getattr(node, "decorator_list", [])]
    return min(each.lineno for each in nodes)


def _definition_named(source: str, name: str) -> Definition:
    scope: ast.Module | Definition = _parsed(source, "the module")
    for part in name.split("."):
        found = [node for node in _definitions(scope.body) if node.name == part]
        if not found:
            raise LookupError(f"there is no function or class {name!r} in that module")
        scope = found[-1]  # as at run time, the last one wins: after @overload, or in an else
    assert isinstance(scope, Definition)
    return scope


def _definitions(body: Iterable[ast.stmt]) -> Iterator[Definition]:
    """Yield the definitions in a scope, also those under an ``if`` or a ``try``."""
    for node in body:
        if isinstance(node, Definition):
            yield node
        elif isinstance(node, (ast.If, ast.Try, ast.With)):
            inner = [getattr(node, field, []) for field in ("body", "orelse", "finalbody")]
            inner += [handler.body for handler in getattr(node, "handlers", [])]
            for each in inner:
                yield from _definitions(each)


class _Normal(ast.NodeTransformer):
    """Takes away what does not count; *own* is what the definition calls itself."""

    def __init__(self, own: str, name: str) -> None:
        self._own = own
        self._name = name

    def visit(self, node: ast.AST) -> Any:
        node = self.generic_visit(node)
        if isinstance(node, Definition) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        if isinstance(node, ast.Name) and node.id == self._own:  # it calls itself
            node.id = self._name
        if isinstance(node, ast.Constant):
            node.kind = None  # u"x" is "x"
        return node


def _normal(node: Definition, name: str, decorators_aside: bool) -> Definition:
    """Return *node* by the name of the package's, without what is set aside."""
    plain: Definition = _Normal(node.name, name).visit(node)
    plain.name = name
    plain.decorator_list = [
        each for each in plain.decorator_list if not decorators_aside and not _is_stage(each)
    ]
    return plain


def _is_stage(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    word = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    return word == "stage"
