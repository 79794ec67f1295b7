"""What a notebook says is the package's is the package's, or somebody is told."""

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
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

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

# Every function and class at the top of a module of ours, as something to compare.
FILES = sorted(Path(mousetrap.__file__).parent.rglob("*.py"))
DEFINITIONS = [
    (text, node.name)
    for text in (file.read_text(encoding="utf-8") for file in FILES)
    for node in ast.parse(text).body
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
]


def measure(body: str = "return 2 * len(word) if twice else len(word)", **changes: str) -> str:
    """A notebook's `measure`, with something changed."""
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
def test_drift_sets_aside_what_changes_nothing(ours):
    """Docstrings, comments, layout, the name, and the queues a stage is bound to."""
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
def test_drift_counts_what_may_change_something(ours):
    """Annotations are what a stage decodes by; other decorators do something, too."""
    difference = drift(ours, measure("return len(word)"), "measure")

    assert difference.startswith("--- package\n+++ notebook\n@@")


def test_drift_can_set_all_decorators_aside():
    """Where the notebook says so."""
    ours, theirs = (measure(decorator=each) for each in ("@cache\n", "@click.command()\n"))

    assert drift(ours, theirs, "measure") != ""
    assert drift(ours, theirs, "measure", decorators_aside=True) == ""


def test_drift_shows_the_package_first_and_the_notebook_second():
    """A line with minus is the package's, one with plus the notebook's; both by one name."""
    difference = drift(measure("return 1", name="ours"), measure("return 2"), "measure")

    assert difference.splitlines()[2:] == [
        "@@ -1,2 +1,2 @@", " def measure(word: str) -> int:", "-    return 2", "+    return 1"
    ]  # fmt: skip


def test_drift_knows_a_function_that_calls_itself():
    """Its own name is set aside inside of it as well, and nobody else's."""
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
    """Where it is at run time: in a class, under a condition, after an overload."""
    assert drift("def measure(self):\n    return 1", theirs, name) == ""


def node_of(module: str, name: str) -> ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef:
    return [node for node in ast.parse(module).body if getattr(node, "name", "") == name][-1]


@given(st.sampled_from(DEFINITIONS))
def test_drift_is_none_between_a_definition_and_itself_written_otherwise(definition):
    """Whatever we have: without comments and layout, with another line to say what it does."""
    module, name = definition
    node = node_of(module, name)
    if ast.get_docstring(node) is not None:
        node.body[0] = ast.Expr(ast.Constant("Once more."))

    assert drift(ast.unparse(node), module, name) == ""


@given(st.sampled_from(DEFINITIONS), st.data())
def test_drift_finds_any_constant_that_was_changed(definition, data):
    """One number or text changed anywhere but in a docstring is drift, and the diff shows it."""
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


def test_marks_say_cell_line_and_target():
    """A mark is a comment by itself, anywhere in a cell, above any number of definitions."""
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
def test_prose_is_no_mark(comment):
    """Whoever never heard of marks is not refused for a comment, or for a text in a string."""
    assert list(marks_in([(1, f"{comment}\n{measure()}")])) == []


@pytest.mark.parametrize(
    "comment",
    ["# same as a.b: measure", "# same as a.b :measure", "# same as a:b, more or less",
     "# same as a:b decorators aside"],
)  # fmt: skip
def test_what_is_meant_for_a_mark_is_not_passed_over(comment):
    """A misspelt claim would never be checked: it is an error that says how to write it."""
    with pytest.raises(SyntaxError, match=r"cell 7: .*is not a mark: write it as"):
        list(marks_in([(7, f"{comment}\n{measure()}")]))


@pytest.mark.parametrize(
    "magics", ["%matplotlib inline\n", "!ls\n", "%%time\n", "len?\n"], ids=lambda text: text.strip()
)
def test_marks_are_found_beside_ipythons_magics(magics):
    """What IPython understands and Python does not is no obstacle, and the lines stay right."""
    [mark] = marks_in([(1, f"{magics}# same as lengths:measure\n{measure()}")])

    assert mark.line == 2
    assert drift(mark.source, measure(), "measure", line=mark.line) == ""


def test_text_that_looks_like_a_magic_counts():
    """A line of a string that begins with % is part of what the function does."""
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
    """Any other place would compare something else, or nothing."""
    [mark] = marks_in([(1, cell)])

    with pytest.raises(LookupError, match="directly above a function or class"):
        drift(mark.source, "def measure(): pass", "measure", line=mark.line)


# ---- where the package's source comes from -----------------------------------------------------


def test_source_of_imports_nothing(tmp_path, monkeypatch):
    """A package that would do harm when imported is only read."""
    package = tmp_path / "harmful" / "deep"
    package.mkdir(parents=True)
    (tmp_path / "harmful" / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "words.py").write_text("x = 1")
    monkeypatch.syspath_prepend(tmp_path)

    assert source_of("harmful.deep.words", tmp_path / "elsewhere") == "x = 1"
    assert "harmful" not in sys.modules


def test_source_of_looks_beside_the_notebook_first(tmp_path):
    """As the kernel does, whose folder that is."""
    (tmp_path / "json.py").write_text("ours = True")

    assert source_of("json", tmp_path) == "ours = True"


@pytest.mark.parametrize(
    "module", ["nobody_has_this", "mousetrap.nothing", "sys", "json.decoder.x"]
)
def test_source_of_says_what_is_not_there(module, tmp_path):
    """No such module, or one that is not Python."""
    with pytest.raises(LookupError, match=module.rpartition(".")[2]):
        source_of(module, tmp_path)


# ---- notebooks ---------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path):
    """A module `lengths` beside a notebook to be written."""
    (tmp_path / "lengths.py").write_text(PACKAGE)
    return tmp_path


def write_notebook(path: Path, *cells: str) -> Path:
    document = new_notebook()
    document.cells = [new_markdown_cell("# Is it?"), *map(new_code_cell, cells)]
    nbformat.write(document, path)
    return path


def test_check_refuses_a_drifted_notebook_before_a_kernel_starts(project, monkeypatch):
    """The error names notebook, cell and function, shows the diff, and says what to do."""
    cell = f"# same as lengths:measure\n{measure('return len(word)')}"
    notebook = write_notebook(project / "a.ipynb", "1", cell)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))

    with pytest.raises(Drifted) as caught:
        check(notebook)

    message = str(caught.value)
    assert f"{notebook}, cell 3, same as lengths:measure: " in message
    assert "Make one of the two equal to the other, or remove the mark" in message
    assert "-def measure(word: str, *, twice: bool=False) -> int:" in message
    assert isinstance(caught.value, CheckError)
    assert caught.value.output is None


def test_check_drift_reports_all_that_drifted(project):
    """One round of mending is enough."""
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
def test_check_drift_refuses_a_mark_that_leads_nowhere(project, cell, reason):
    """A claim that nobody can check is worse than none."""
    (project / "broken.py").write_text("def measure(:")

    with pytest.raises(Drifted, match=reason) as caught:
        check_drift(write_notebook(project / "a.ipynb", cell))

    assert "a.ipynb, cell 2" in str(caught.value)


def test_check_drift_takes_a_notebook_without_marks(project):
    """It claims nothing."""
    check_drift(write_notebook(project / "a.ipynb", "def measure(): pass", "this is no Python"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_our_notebooks_have_not_drifted(path):
    """Where one of them shows a function of the package, it shows the one that is in it."""
    check_drift(path)


def test_our_notebooks_make_the_claim_somewhere():
    """`process` is shown as the few lines that it is."""
    documents = (nbformat.read(path, as_version=4) for path in NOTEBOOKS)
    cells = [cell for document in documents for cell in document.cells]
    sources = [cell.source for cell in cells if cell.cell_type == "code"]

    names = {mark.name for mark in marks_in(enumerate(sources))}

    assert "process" in names
