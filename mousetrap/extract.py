"""Writes the cells of a stage as a module that ``mousetrap work`` can run.

The cells are those tagged ``extract:NAME``. The imports that they need are copied from the whole
notebook. Anything else that they need is notebook state: it is refused with an error that names the
cell. The cells stay in the notebook as the prototype: each definition gets the comment
``# same as module:name``, which `mousetrap.check.drift` verifies, and a new cell imports the
definitions of the module.

Nothing here runs the notebook. ruff formats the module if it is installed.
"""

from __future__ import annotations

import ast
import builtins
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mousetrap.check.notebook_format import insert_cell, text_of
from mousetrap.check.notebook_joins import NotebookCell, import_of, imports_for_joins
from mousetrap.check.parameters import read_notebook
from mousetrap.errors import ExtractError
from mousetrap.runtime.atomic_file import write_atomically

TAG = "extract:"
_BELOW_IMPORT = (
    "# Below, the package's functions are used. To try a change above, do not run this cell."
)
_ALWAYS_DEFINED = set(dir(builtins)) | {"__name__", "__file__", "__doc__"}
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom,
          ast.Assign, ast.AnnAssign)  # fmt: skip


@dataclass(frozen=True)
class Extracted:
    """The module that `extract` wrote."""

    path: Path
    module: str
    names: tuple[str, ...]  # of its definitions, in their order
    is_formatted: bool  # ruff is installed
    is_importable: bool  # by a kernel in the notebook's folder


def extract(
    notebook: str | Path, stage: str, output: str | Path, *, replace: bool = False
) -> Extracted:
    """Write the cells of *notebook* tagged ``extract:STAGE`` to *output*, and import it there.

    *output* is below the current folder, and its path gives the module its name:
    ``my_flow/fetch.py`` is ``my_flow.fetch``. An existing file is overwritten only with *replace*.

    Raises:
        ExtractError: there are no such cells, they have no function of that name, or a cell depends
            on notebook state or does something when it runs; the error names the cell and the fix.
            Nothing is written then.
        CheckError: it is not a notebook.
    """
    source, target = Path(notebook), Path(output)
    module = _module_name(target)
    if target.exists() and not replace:
        raise ExtractError(
            f"{target} exists already: overwrite it with --replace, or name another file"
        )
    if target.exists() and not target.is_file():
        raise ExtractError(f"{target} is not a plain file: name another file")
    document = read_notebook(source)
    cells = list(_python_cells(document, source))
    tagged = [each for each in cells if f"{TAG}{stage}" in each.cell.metadata.get("tags", [])]
    if not tagged:
        raise ExtractError(
            f"{source} has no code cell tagged {TAG}{stage}: tag the cells that define it (in "
            f"JupyterLab: the gear at the right, Cell Tags)"
        )
    names = [name for each in tagged for name in _defined_in(each.tree, imports=False)]
    if stage not in names:
        raise ExtractError(
            f"the cells tagged {TAG}{stage} of {source} define no {stage!r} but "
            f"{', '.join(names) or 'nothing'}: tag the cell that defines it"
        )
    _require_plain(tagged, source)
    imports = [*_imports_for(tagged, cells, source), *imports_for_joins(tagged, cells, source)]
    text = _module_text(tagged, imports, source, stage)
    text, is_formatted = _formatted(text)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, text)
    target.chmod(0o644)  # a module is for others to import
    _import_module(document, source, tagged, module, names)
    return Extracted(target, module, tuple(names), is_formatted, _can_import(module, source))


def _module_name(path: Path) -> str:
    try:
        parts = path.absolute().relative_to(Path.cwd()).with_suffix("").parts
    except ValueError:
        parts = ()
    if path.suffix != ".py" or not parts or not all(part.isidentifier() for part in parts):
        raise ExtractError(
            f"{path} cannot be imported: give a .py file below {Path.cwd()} whose folders and "
            f"name are plain words, like my_flow/fetch.py"
        )
    return ".".join(parts)


def _python_cells(document: Any, path: Path) -> Iterator[NotebookCell]:
    for number, cell in enumerate(document.cells, start=1):
        if cell.cell_type != "code":
            continue
        try:
            yield NotebookCell(number, cell, ast.parse(cell.source))
        except (SyntaxError, ValueError) as error:
            if any(tag.startswith(TAG) for tag in cell.metadata.get("tags", [])):
                raise ExtractError(
                    f"{path}, cell {number} is not plain Python ({error}): a module cannot "
                    f"have magics or shell commands"
                ) from None


def _require_plain(tagged: list[NotebookCell], path: Path) -> None:
    for each in tagged:
        for node in each.tree.body:
            if not isinstance(node, _DEFINITIONS):
                line = ast.unparse(node).splitlines()[0][:60]
                raise ExtractError(
                    f"{path}, cell {each.number} does something when it is run: `{line}`. Keep "
                    f"definitions, imports and constants in it, and move the rest to another cell"
                )


def _imports_for(tagged: list[NotebookCell], cells: list[NotebookCell], path: Path) -> list[str]:
    """Return the import statements that the tagged cells need and do not contain."""
    own = {name for each in tagged for name in _defined_in(each.tree)}
    found: dict[str, str] = {}
    for each in tagged:
        for name in sorted(_free_names(each.tree) - own - _ALWAYS_DEFINED):
            statement = next(
                (line for other in reversed(cells) if (line := import_of(name, other.tree))), None
            )
            if statement is None:
                raise ExtractError(_state_error(name, each, cells, path))
            found[name] = statement
    return list(found.values())


def _state_error(name: str, user: NotebookCell, cells: list[NotebookCell], path: Path) -> str:
    source = next((each for each in cells if name in _defined_in(each.tree, imports=False)), None)
    if source is None:
        return (
            f"{path}, cell {user.number} uses {name!r}, and nothing in the notebook defines it: "
            f"define it, or import it"
        )
    return (
        f"{path}, cell {user.number} depends on notebook state: {name!r} comes from cell "
        f"{source.number}. Pass it to the function as an argument with a default, or tag that "
        f"cell as well"
    )


def _defined_in(tree: ast.Module, *, imports: bool = True) -> list[str]:
    """Return the names that the statements of *tree* bind at its top level."""
    names: list[str] = []
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.append(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            if imports:
                names += [each.asname or each.name.partition(".")[0] for each in node.names]
        else:
            names += [
                each.id for each in ast.walk(node)
                if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
            ]  # fmt: skip
    return names


def _free_names(tree: ast.Module) -> set[str]:
    """Return the names that *tree* reads and that no scope within it binds."""
    import symtable

    free: set[str] = set()

    def visit(scope: symtable.SymbolTable) -> None:
        for symbol in scope.get_symbols():
            is_top = scope.get_type() == "module"
            if symbol.is_referenced() and (symbol.is_global() or (is_top and symbol.is_local())):
                free.add(symbol.get_name())
        for child in scope.get_children():
            visit(child)

    visit(symtable.symtable(ast.unparse(tree), "cell", "exec"))
    return free


def _module_text(tagged: list[NotebookCell], imports: list[str], path: Path, stage: str) -> str:
    """Return the module: a docstring with its notebook, the imports, then the cells unchanged."""
    own = [
        ast.unparse(node) for each in tagged for node in each.tree.body
        if isinstance(node, (ast.Import, ast.ImportFrom))
    ]  # fmt: skip
    bodies = [_without_imports(each) for each in tagged]
    head = f'"""The stage {stage}.\n\nPrototyped in ``{path.as_posix()}``.\n"""\n'
    parts = [head, "\n".join(dict.fromkeys([*own, *imports])), *bodies]
    return "\n\n".join(part for part in parts if part.strip()) + "\n"


def _without_imports(cell: NotebookCell) -> str:
    lines = cell.cell.source.splitlines()
    for node in cell.tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for line in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[line] = ""
    kept = [line for line in lines if not line.startswith("# same as ")]
    return "\n".join(kept).strip("\n")


def _formatted(text: str) -> tuple[str, bool]:
    installed = Path(sys.executable).with_name("ruff")
    ruff = str(installed) if installed.exists() else shutil.which("ruff")
    if ruff is None:
        return text, False
    # the first sorts the imports and removes unused ones, the second formats
    for arguments in (["check", "--select", "I,F401", "--fix", "--exit-zero"], ["format"]):
        done = subprocess.run(
            [ruff, *arguments, "--quiet", "--isolated", "--line-length", "100", "-"],
            input=text, capture_output=True, encoding="utf-8", timeout=60, check=False,
        )  # fmt: skip
        if done.returncode:
            return text, False
        text = done.stdout
    return text, True


def _import_module(
    document: Any, path: Path, tagged: list[NotebookCell], module: str, names: list[str]
) -> None:
    """Mark the definitions in the cells, and import the module's in a cell after the last one."""
    import nbformat

    for each in tagged:
        lines = each.cell.source.splitlines()
        for node in reversed(each.tree.body):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                above = min([node.lineno, *(each.lineno for each in node.decorator_list)]) - 1
                mark = f"# same as {module}:{node.name}"
                if above == 0 or lines[above - 1] != mark:
                    lines.insert(above, mark)
        each.cell.source = "\n".join(lines)
    statement = f"from {module} import {', '.join(names)}\n{_BELOW_IMPORT}"
    following = document.cells[tagged[-1].number : tagged[-1].number + 1]
    if not following or not following[0].source.startswith(f"from {module} import "):
        cell = nbformat.v4.new_code_cell(statement)  # type: ignore[no-untyped-call]  # half annotated
        insert_cell(document, tagged[-1].number, cell)
    else:
        following[0].source = statement
    mode = path.stat().st_mode
    write_atomically(path, text_of(document) + "\n")
    path.chmod(mode)


def _can_import(module: str, notebook: Path) -> bool:
    """Return whether a new Python in the notebook's folder can import *module*."""
    done = subprocess.run(
        [sys.executable, "-c", f"import {module}"], cwd=notebook.absolute().parent,
        env=os.environ, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode == 0
