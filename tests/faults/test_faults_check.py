"""Faults of a notebook: each kind of failing cell turns a check red, and no sound cell does."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import nbformat
import pytest
from rig.checker import History
from rig.trial import LONG
from support import verdicts
from support.failing_cells import DEADLY, RAISING, SILENT, SOUND
from support.notebook_files import write_notebook

from mousetrap.check import check
from mousetrap.errors import CheckFailed

SOUND_NEIGHBOURS = ("first = 1", "second = 2")
POSITIONS = {0: "first", 1: "middle", 2: "last"}
TITLE = 1  # cells before the first code cell
FAILING = RAISING | SILENT
ALL = FAILING | DEADLY | SOUND
assert len(ALL) == len(RAISING) + len(SILENT) + len(DEADLY) + len(SOUND)
GREEN_FOR_PAPERMILL = {"exit with code 0", "sys.exit"}

EVERY_KIND = list(itertools.product(FAILING | DEADLY, POSITIONS))
A_FEW_KINDS = [
    ("unknown line magic", 2),
    ("traceback hidden", 1),
    ("kernel killed", 0),
    ("exit function", 1),
]
FEW_OR_EVERY = pytest.mark.parametrize(
    "cases",
    [
        pytest.param(A_FEW_KINDS, id="few"),
        pytest.param(EVERY_KIND, marks=LONG, id="every"),
    ],
)


def notebooks(folder: Path, cases: list[tuple[str, int]]) -> dict[Path, int]:
    """Write a notebook for each (kind, position); return the number of the cell by notebook."""
    written = {}
    for kind, position in cases:
        cells = list(SOUND_NEIGHBOURS)
        cells.insert(position, ALL[kind])
        path = folder / f"{kind.replace(' ', '_')}-{POSITIONS[position]}.ipynb"
        written[write_notebook(path, *cells)] = position + TITLE + 1
    return written


def history_of(expected: dict[Path, int | None], found: dict[Path, int | None]) -> History:
    """Return a history in which each notebook with the expected verdict has had its effect."""
    names = {path.name for path in expected}
    right = Counter(path.name for path in expected if found.get(path, -1) == expected[path])
    return History(attempted=names, confirmed=names, effects=right)


@pytest.mark.fault("F45")
@FEW_OR_EVERY
def test_check_names_the_cell_that_fails(tmp_path, fault_row, cases):
    """A check is red, and names the cell, whatever way the cell fails and wherever it is."""
    expected = notebooks(tmp_path, cases)

    found = verdicts.of_check(expected, tmp_path / "report")

    fault_row.add(history_of(expected, found), len(expected))


@pytest.mark.fault("F45")
@FEW_OR_EVERY
def test_pytest_item_names_the_cell_that_fails(tmp_path, fault_row, cases, broker):
    """The item of nbmake is red, too, and names the cell."""
    # exit() is a failure only for a check: nbmake does not read that part of the kernel's reply.
    expected = notebooks(tmp_path, [case for case in cases if not case[0].endswith("function")])

    found = verdicts.of_nbmake(tmp_path, broker.environment())

    fault_row.add(history_of(expected, found), len(expected))


def test_check_marks_each_failing_cell_in_its_copy(tmp_path):
    """Cells that fail and let the notebook go on: each shows an error in the executed copy."""
    kinds = {kind: cell for kind, cell in FAILING.items() if kind not in SILENT} | {
        kind: cell for kind, cell in SILENT.items() if "get_ipython" not in cell
    }
    notebook = tagged(write_notebook(tmp_path / "a.ipynb", *kinds.values()), "raises-exception")

    with pytest.raises(CheckFailed, match="failed in cell 2 ") as caught:
        check(notebook, deadline=60)

    copy = nbformat.read(caught.value.output, 4)
    cells = [cell for cell in copy.cells if cell.cell_type == "code"]
    unmarked = [
        kind
        for kind, cell in zip(kinds, cells, strict=True)
        if not any(output.output_type == "error" for output in cell.outputs)
    ]
    assert unmarked == []


@pytest.mark.fault("F45")
@pytest.mark.parametrize(
    "cases",
    [
        pytest.param([("value", 0)], id="together"),
        pytest.param(list(itertools.product(SOUND, POSITIONS)), marks=LONG, id="each"),
    ],
)
def test_check_passes_sound_cells(tmp_path, fault_row, cases):
    """No sound cell turns a check red: all in one notebook, and each in notebooks of its own."""
    expected = dict.fromkeys(notebooks(tmp_path, cases), None)
    expected[write_notebook(tmp_path / "together.ipynb", *SOUND.values())] = None

    found = verdicts.of_check(expected, tmp_path / "report")

    assert {path.name: cell for path, cell in found.items() if cell is not None} == {}
    fault_row.add(history_of(expected, found), len(expected))


@pytest.mark.long
@pytest.mark.timeout(600)
def test_papermill_agrees_which_cells_fail(tmp_path):
    """The table has papermill's verdicts; only an exit with code 0 is a success for papermill."""
    for kind in FAILING | SOUND:
        [notebook] = notebooks(tmp_path, [(kind, 2)])
        failed = not verdicts.of_papermill(notebook)

        assert failed == (kind in FAILING and kind not in GREEN_FOR_PAPERMILL), kind


TAGS = {  # of a cell that raises, or not: who calls the notebook red
    ("raises-exception", "1 / 0"): {"papermill", "check"},
    ("raises-exception", "1 / 1"): set(),
    ("raises-exception", "%non_existing_magic"): {"check"},
    ("skip-execution", "1 / 0"): {"check"},
    ("any-other", "1 / 0"): {"papermill", "check", "nbmake"},
}
"""The same verdicts as in deploy/docs/recipes.md, which explains where they differ."""


def test_tags_have_the_verdicts_that_the_recipe_names(tmp_path, broker):
    """A tag that accepts an error, or skips a cell, counts for some programs only."""
    expected = {}
    for number, ((tag, source), red) in enumerate(TAGS.items()):
        path = tagged(write_notebook(tmp_path / f"{number}.ipynb", source), tag)
        expected[path] = red

    nbmake = verdicts.of_nbmake(tmp_path, broker.environment())
    check = verdicts.of_check(expected, tmp_path / "report")

    found = {
        path: {name for name, is_red in (
            ("papermill", not verdicts.of_papermill(path)),
            ("check", check[path] is not None),
            ("nbmake", nbmake[path] is not None),
        ) if is_red}
        for path in expected
    }  # fmt: skip
    assert list(found.values()) == list(expected.values())


@pytest.mark.parametrize("tag", ["raises-exception", "skip-execution"])
def test_check_explains_a_tag_that_it_does_not_obey(tmp_path, tag):
    """The error says for which programs the tag counts, and what to write instead."""
    notebook = tagged(write_notebook(tmp_path / "a.ipynb", "1 / 0"), tag)

    with pytest.raises(CheckFailed, match=f"its tag {tag} counts for nbmake"):
        check(notebook)


def tagged(notebook: Path, tag: str) -> Path:
    """Give each code cell of *notebook* the *tag*."""
    document = nbformat.read(notebook, 4)
    for cell in document.cells:
        if cell.cell_type == "code":
            cell.metadata["tags"] = [tag]
    nbformat.write(document, notebook)
    return notebook
