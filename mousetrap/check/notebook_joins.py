"""The joins of a notebook, as `extract` reads them from its cells, without running them.

A worker of the stage that a join names must know the join and the stages between: they are defined
in its module, or imported there (see `mousetrap.flows.joins`).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mousetrap.errors import ExtractError


@dataclass(frozen=True)
class NotebookCell:
    """A code cell of plain Python."""

    number: int  # among all cells of the notebook, from 1
    cell: Any
    tree: ast.Module


@dataclass(frozen=True)
class _Stage:
    """A decorated function, with the texts in the arguments of its decorator."""

    function: str
    name: str
    reads: set[str]
    targets: set[str]
    joins: set[str]
    cell: NotebookCell


def imports_for_joins(
    tagged: list[NotebookCell], cells: list[NotebookCell], path: Path
) -> list[str]:
    """Return the imports by which the stages in *tagged* know the joins of what they make.

    Raises:
        ExtractError: such a join, or a stage before it, is neither in *tagged* nor imported by a
            cell of the notebook.
    """
    stages = list({each.function: each for one in cells for each in _stages(one)}.values())
    found: dict[str, str] = {}
    for split in stages:
        if split.cell not in tagged:
            continue
        for join in stages:
            if split.name not in join.joins:
                continue
            for needed in [*_between(split, join, stages), join]:
                if needed.cell in tagged:
                    continue
                line = next(
                    (line for one in cells if (line := import_of(needed.function, one.tree))), None
                )
                if line is None:
                    raise ExtractError(
                        f"{path}, cell {needed.cell.number}: {join.function} joins what "
                        f"{split.function} makes, so a worker of {split.function} must know "
                        f"{needed.function}: give that cell the tag extract:{split.function} as "
                        f"well, or extract {needed.function} before {split.function}"
                    )
                found[needed.function] = f"{line}  # noqa: F401 -- of the join {join.function}"
    return list(found.values())


def import_of(name: str, tree: ast.Module) -> str | None:
    """Return a statement that imports *name* alone, if *tree* imports it."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                bound = alias.asname or (
                    alias.name.partition(".")[0] if isinstance(node, ast.Import) else alias.name
                )
                if bound == name:
                    only = (
                        ast.Import([alias]) if isinstance(node, ast.Import)
                        else ast.ImportFrom(node.module, [alias], node.level)
                    )  # fmt: skip
                    return ast.unparse(only)
    return None


def _stages(cell: NotebookCell) -> Iterator[_Stage]:
    """Return the functions of *cell* that are decorated with ``stage``."""
    for node in cell.tree.body:
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        for call in node.decorator_list:
            if not isinstance(call, ast.Call) or not _is_stage(call.func):
                continue
            given = dict(zip(("reads", "writes"), call.args, strict=False))
            given |= {each.arg: each.value for each in call.keywords if each.arg}
            texts = {name: _texts(value) for name, value in given.items()}
            yield _Stage(
                node.name,
                next(iter(texts.get("name", ())), node.name),
                texts.get("reads", set()),
                texts.get("writes", set()) | texts.get("routes", set()),
                texts.get("joins", set()),
                cell,
            )


def _is_stage(node: ast.expr) -> bool:
    return (isinstance(node, ast.Name) and node.id == "stage") or (
        isinstance(node, ast.Attribute) and node.attr == "stage"
    )


def _texts(node: ast.expr) -> set[str]:
    found = (each.value for each in ast.walk(node) if isinstance(each, ast.Constant))
    return {each for each in found if isinstance(each, str)}


def _between(split: _Stage, join: _Stage, stages: list[_Stage]) -> list[_Stage]:
    """Return the stages through which messages of *split* come to *join*, in some order."""
    others = [each for each in stages if each not in (split, join)]
    reached, leading = set(split.targets), set(join.reads)
    for _ in others:  # each turn goes one stage further from both ends
        reached |= {to for each in others if each.reads & reached for to in each.targets}
        leading |= {name for each in others if each.targets & leading for name in each.reads}
    return [each for each in others if each.reads & reached and each.targets & leading]
