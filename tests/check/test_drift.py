"""`mousetrap.check.drift`: definitions in a notebook that are marked as the same as a package's."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.notebook_files import write_notebook

import mousetrap
from mousetrap.check import check
from mousetrap.check.drift import SameAsMark, check_drift, drift, marks_in, source_of
from mousetrap.errors import CheckError, Drifted

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

PACKAGE = '''
import math
from mousetrap import stage

@stage(reads="words", writes="lengths")
def measure(word: str, *, twice: bool = False) -> int:
    """Return how long *word* is."""
    # a comment
    if twice:
        return 2 * len(word)
    return len(word)
'''

# Every top-level function and class of mousetrap, as examples to compare.
FILES = sorted(Path(mousetrap.__file__).parent.rglob("*.py"))
DEFINITIONS = [
    (text, node.name)
    for text in (file.read_text(encoding="utf-8") for file in FILES)
    for node in ast.parse(text).body
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
]


def measure(body: str = "return 2 * len(word) if twice else len(word)", **changes: str) -> str:
    """Return the source of the notebook's `measure`, with *changes*."""
    parts = {"decorator": "", "name": "measure", "arguments": "word: str", "returns": " -> int"}
    parts |= changes
    head = f"{parts['decorator']}def {parts['name']}({parts['arguments']}){parts['returns']}:\n"
    return head + textwrap.indent(body, "    ")


# ---- what counts as the same -------------------------------------------------------------------


@pytest.mark.parametrize(
    "ours",
    [
        measure("return len(word)"),
        measure('"""Another docstring."""\nreturn len(word)'),
        measure("# why\n\nreturn (len(\n    word,\n))  # so"),
        measure("return len(word)", name="how_long"),
        measure("return len(word)", decorator="@stage(reads='other', concurrency=4)\n"),
        measure("return len(word)", decorator="@mousetrap.stage(reads='other')\n"),
    ],
    ids=["as it is", "docstring", "layout", "its own name", "stage", "stage of the module"],
)
def test_drift_ignores_what_does_not_change_the_result(ours):
    """Docstrings, comments, layout, the name, and the queues of a stage are ignored."""
    theirs = measure('"""Return how long."""\nreturn len(word)', decorator="@stage(reads='w')\n")

    assert drift(ours, theirs, "measure") == ""


@pytest.mark.parametrize(
    "ours",
    [
        measure("return len(word) + 1"),
        measure("return len(words)"),
        measure("return len(word)", arguments="word"),
        measure("return len(word)", arguments="word: bytes"),
        measure("return len(word)", arguments="word: str = ''"),
        measure("return len(word)", returns=""),
        measure("return len(word)", decorator="@cache\n"),
        measure("'no docstring'[0]\nreturn len(word)"),
        measure("return len(word)").replace("def", "async def"),
        "class measure:\n    word: str",
    ],
    ids=["value", "name", "no annotation", "annotation", "default", "return annotation",
         "decorator", "statement", "async", "class"],
)  # fmt: skip
def test_drift_finds_what_can_change_the_result(ours):
    """A stage decodes messages by annotations, and other decorators can do anything."""
    difference = drift(ours, measure("return len(word)"), "measure")

    assert difference.startswith("--- package\n+++ notebook\n@@")


def test_drift_can_ignore_all_decorators():
    """The notebook says so in its mark."""
    ours, theirs = (measure(decorator=each) for each in ("@cache\n", "@click.command()\n"))

    assert drift(ours, theirs, "measure") != ""
    assert drift(ours, theirs, "measure", decorators_aside=True) == ""


def test_drift_shows_the_package_first_and_the_notebook_second():
    """A minus marks lines of the package, a plus those of the notebook; both have one name."""
    difference = drift(measure("return 1", name="ours"), measure("return 2"), "measure")

    assert difference.splitlines()[2:] == [
        "@@ -1,2 +1,2 @@", " def measure(word: str) -> int:", "-    return 2", "+    return 1"
    ]  # fmt: skip


def test_drift_accepts_another_name_in_a_recursive_call():
    """The name of the definition is ignored inside it, too, but no other name."""
    ours = "def ours(n):\n    return n and ours(n - 1)"
    theirs = "def _theirs(n):\n    return n and _theirs(n - 1)"
    another = "def _theirs(n):\n    return n and ours(n - 1)"

    assert drift(ours, theirs, "_theirs") == ""
    assert drift(ours, another, "_theirs") != ""


@pytest.mark.parametrize(
    ("theirs", "name"),
    [
        ("class Words:\n    def measure(self): return 1", "Words.measure"),
        ("if fast:\n    from c import measure\nelse:\n    def measure(self): return 1", "measure"),
        ("try:\n    import c\nexcept ImportError:\n    def measure(self): return 1", "measure"),
        ("def measure(self): return 2\ndef measure(self): return 1", "measure"),
    ],
    ids=["method", "else", "except", "the last one wins"],
)
def test_drift_finds_the_packages_definition(theirs, name):
    """It finds the one that is used at run time: in a class, a condition, after an overload."""
    assert drift("def measure(self):\n    return 1", theirs, name) == ""


def node_of(module: str, name: str) -> ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef:
    return [node for node in ast.parse(module).body if getattr(node, "name", "") == name][-1]


@given(st.sampled_from(DEFINITIONS))
def test_drift_is_empty_for_the_same_definition_in_another_layout(definition):
    """For each definition of mousetrap: without comments, with another docstring."""
    module, name = definition
    node = node_of(module, name)
    if ast.get_docstring(node) is not None:
        node.body[0] = ast.Expr(ast.Constant("Once more."))

    assert drift(ast.unparse(node), module, name) == ""


@given(st.sampled_from(DEFINITIONS), st.data())
def test_drift_finds_any_constant_that_was_changed(definition, data):
    """A number or a text that was changed anywhere but in a docstring is in the diff."""
    module, name = definition
    node = node_of(module, name)
    prose = {id(each.value) for each in ast.walk(node) if isinstance(each, ast.Expr)}
    stages = {
        id(each)
        for decorator in node.decorator_list
        if "stage" in ast.unparse(decorator)
        for each in ast.walk(decorator)
    }
    constants = [
        each
        for each in ast.walk(node)
        if isinstance(each, ast.Constant) and id(each) not in prose | stages
    ]
    if not constants:
        return
    data.draw(st.sampled_from(constants)).value = "drifted"

    assert "+" in drift(ast.unparse(node), module, name)


# ---- marks -------------------------------------------------------------------------------------


def test_marks_have_cell_line_and_target():
    """A mark is a comment on its own line; a cell can have several."""
    cell = f"x = 1\n\n# same as lengths.words:measure\n{measure()}\n"
    cell += f"# same as lengths:Words.measure, decorators aside\n{measure()}"

    marks = list(marks_in([(3, "1 + 1"), (4, cell)]))

    assert marks == [
        SameAsMark(4, 3, "lengths.words", "measure", False, cell),
        SameAsMark(4, 6, "lengths", "Words.measure", True, cell),
    ]
    assert str(marks[0]) == "cell 4, same as lengths.words:measure"


@pytest.mark.parametrize(
    "comment",
    ["# same as above", "# same as above: but slower", "# same as np.mean, for lists",
     "# see http://a:b", "# same as 10:30", "x = 1  # same as a:b", "'''\n# same as a:b\n'''"],
)  # fmt: skip
def test_other_comments_are_not_marks(comment):
    """A comment or a string with similar words is no error for users who do not use marks."""
    assert list(marks_in([(1, f"{comment}\n{measure()}")])) == []


@pytest.mark.parametrize(
    "comment",
    ["# same as a.b: measure", "# same as a.b :measure", "# same as a:b, more or less",
     "# same as a:b decorators aside"],
)  # fmt: skip
def test_misspelt_mark_is_an_error(comment):
    """It would never be checked; the error shows the right form."""
    with pytest.raises(SyntaxError, match=r"cell 7: .*is not a mark: write it as"):
        list(marks_in([(7, f"{comment}\n{measure()}")]))


@pytest.mark.parametrize(
    "magics", ["%matplotlib inline\n", "!ls\n", "%%time\n", "len?\n"], ids=lambda text: text.strip()
)
def test_marks_are_found_beside_ipythons_magics(magics):
    """Lines that only IPython can read are ignored, and line numbers stay the same."""
    [mark] = marks_in([(1, f"{magics}# same as lengths:measure\n{measure()}")])

    assert mark.line == 2
    assert drift(mark.source, measure(), "measure", line=mark.line) == ""


def test_text_that_looks_like_a_magic_is_compared():
    """A line of a string that begins with % is part of the function."""
    ours = 'def measure():\n    return """\n%s\n"""'

    [mark] = marks_in([(1, f"# same as lengths:measure\n{ours}")])

    assert drift(mark.source, ours, "measure", line=1) == ""


@pytest.mark.parametrize(
    "cell",
    ["# same as lengths:measure", "# same as lengths:measure\nx = 1\ndef measure(): pass",
     "@cache\n# same as lengths:measure\ndef measure(): pass",
     "class Words:\n    # same as lengths:measure\n    def measure(self): pass"],
    ids=["nothing below", "something between", "inside", "in a class"],
)  # fmt: skip
def test_mark_must_be_directly_above_a_definition(cell):
    """At another place it would be unclear what to compare."""
    [mark] = marks_in([(1, cell)])

    with pytest.raises(LookupError, match="directly above a function or class"):
        drift(mark.source, "def measure(): pass", "measure", line=mark.line)


# ---- where the package's source comes from -----------------------------------------------------


def test_source_of_imports_nothing(tmp_path, monkeypatch):
    """A package that exits when it is imported is only read."""
    package = tmp_path / "harmful" / "deep"
    package.mkdir(parents=True)
    (tmp_path / "harmful" / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "words.py").write_text("x = 1")
    monkeypatch.syspath_prepend(tmp_path)

    assert source_of("harmful.deep.words", tmp_path / "elsewhere") == "x = 1"
    assert "harmful" not in sys.modules


def test_source_of_looks_beside_the_notebook_first(tmp_path):
    """The kernel runs in that folder and does the same."""
    (tmp_path / "json.py").write_text("ours = True")

    assert source_of("json", tmp_path) == "ours = True"


@pytest.mark.parametrize(
    "module", ["nobody_has_this", "mousetrap.nothing", "sys", "json.decoder.x"]
)
def test_source_of_says_which_module_is_missing(module, tmp_path):
    """The module does not exist, or has no Python source."""
    with pytest.raises(LookupError, match=module.rpartition(".")[2]):
        source_of(module, tmp_path)


# ---- notebooks ---------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path):
    """The folder of a project with a module `lengths`."""
    (tmp_path / "lengths.py").write_text(PACKAGE)
    return tmp_path


def test_check_refuses_a_drifted_notebook_before_a_kernel_starts(project, monkeypatch):
    """The error names notebook, cell and function, shows the diff, and says what to do."""
    cell = f"# same as lengths:measure\n{measure('return len(word)')}"
    notebook = write_notebook(project / "a.ipynb", "1", cell)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))

    with pytest.raises(Drifted) as caught:
        check(notebook)

    message = str(caught.value)
    assert f"{notebook}, cell 3, same as lengths:measure: " in message
    assert "mousetrap extract --replace" in message
    assert "-def measure(word: str, *, twice: bool=False) -> int:" in message
    assert isinstance(caught.value, CheckError)
    assert caught.value.output is None


def test_check_drift_reports_all_that_drifted(project):
    """All differences can be corrected at once."""
    cells = [f"# same as lengths:measure\n{measure('return 1', name=name)}" for name in "ab"]

    with pytest.raises(Drifted) as caught:
        check_drift(write_notebook(project / "a.ipynb", *cells))

    assert "cell 2" in str(caught.value)
    assert "cell 3" in str(caught.value)


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("# same as length:measure\ndef f(): pass", "there is no module 'length'"),
        ("# same as lengths:measur\ndef f(): pass", "no function or class 'measur'"),
        ("# same as lengths:measure\nx = 1", "directly above"),
        ("# same as lengths:measure\ndef f(:", "the cell is not plain Python"),
        ("# same as broken:measure\ndef f(): pass", "the module is not plain Python"),
        ("# same as lengths:measure, nearly\ndef f(): pass", "is not a mark"),
    ],
)
def test_check_drift_refuses_a_mark_without_a_target(project, cell, reason):
    """A mark that cannot be compared is an error."""
    (project / "broken.py").write_text("def measure(:")

    with pytest.raises(Drifted, match=reason) as caught:
        check_drift(write_notebook(project / "a.ipynb", cell))

    assert "a.ipynb, cell 2" in str(caught.value)


def test_check_drift_accepts_a_notebook_without_marks(project):
    """There is nothing to compare."""
    check_drift(write_notebook(project / "a.ipynb", "def measure(): pass", "this is no Python"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_our_notebooks_have_not_drifted(path):
    """Each marked function is the same as that of the package."""
    check_drift(path)


def test_our_notebooks_mark_process():
    """At least one notebook shows `process` and marks it."""
    documents = (nbformat.read(path, as_version=4) for path in NOTEBOOKS)
    cells = [cell for document in documents for cell in document.cells]
    sources = [cell.source for cell in cells if cell.cell_type == "code"]

    names = {mark.name for mark in marks_in(enumerate(sources))}

    assert "process" in names
