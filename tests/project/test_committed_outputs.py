"""The committed outputs of the notebooks: what may differ, what may not be there, what is found.

`notebooks/conftest.py` compares them with what comes out, when nbmake runs the notebooks.
"""

from __future__ import annotations

import base64
import copy
import io
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from support.committed_outputs import cleaned, comparable, differences, write
from support.output_rules import ONLY_RABBITMQ, RULES, TAGS, VOLATILE, committed, normalised

ROOT = Path(__file__).parents[2]
NUMBERED = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
MAX_SIZE = 300_000  # bytes of a notebook
every_numbered = pytest.mark.parametrize("path", NUMBERED, ids=lambda path: path.stem)
SECRETS = {
    "a password": r"CHANGE_ME|://\w+:(?!\*+@)[^@/\s]+@",
    "a folder of a machine": r"/(?:home|root|work|Users|tmp|opt|var)/|[A-Z]:\\",
    "the id of a container": r"(?<![\w-])[0-9a-f]{12}(?![\w.])|(?<!\w)[0-9a-f]{64}(?!\w)",
    "a host": r"\b\d+\.\d+\.\d+\.\d+\b(?<!127\.0\.0\.1)|\b[\w-]+\.(?:local|internal|lan)\b",
}


def code_cells(path: Path) -> list:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def texts(cell) -> list[str]:
    """All texts of the cell's outputs, pictures in HTML decoded."""
    found = [text for kind, text in comparable(cell.outputs, ()) if kind != "image/png"]
    raw = [each.get("text", "") for each in cell.outputs]
    raw += [str(text) for each in cell.outputs for text in each.get("data", {}).values()
            if not isinstance(text, str) or len(text) < 100_000]  # fmt: skip
    return found + raw


# ---- what is committed -------------------------------------------------------------------------


@every_numbered
def test_notebook_is_committed_as_it_ran(path):
    """Its cells were run from the first to the last, without an error, and it is small enough."""
    cells = code_cells(path)

    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    assert any(cell.outputs for cell in cells)
    for cell in cells:
        assert all(output.output_type != "error" for output in cell.outputs), cell.id
        assert "execution" not in cell.metadata, cell.id
    assert path.stat().st_size <= MAX_SIZE


@every_numbered
def test_no_output_has_a_secret_or_names_the_machine(path):
    """Passwords, folders, containers and hosts of where it ran stay there."""
    host = re.compile(rf"\b{re.escape(socket.gethostname())}\b")
    for cell in code_cells(path):
        for text in texts(cell):
            for name, pattern in SECRETS.items():
                assert not re.search(pattern, text), f"{name} in the output of {cell.id!r}"
            assert not host.search(text), f"this host in the output of {cell.id!r}"


@every_numbered
def test_volatile_cells_have_a_reason_and_each_tag_is_known(path):
    """A tag that no rule has would mask nothing; a cell without a reason was tagged in a hurry."""
    for cell in code_cells(path):
        tags = set(cell.metadata.get("tags", [])) - {"parameters"}
        reason = cell.metadata.get("mousetrap", {}).get(VOLATILE, "")

        assert tags <= TAGS, cell.id
        assert (VOLATILE in tags) == (len(reason.split()) > 3), cell.id
        assert cell.outputs or tags <= {ONLY_RABBITMQ}, f"{cell.id} has no output that can differ"


# ---- what is masked ----------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_rule_masks_what_it_names_and_nothing_else(rule):
    """Each example becomes the rule's word, and what only resembles it stays as it is."""
    for text in rule.masks:
        assert rule.apply(f"<p>{text}</p>") == f"<p>{rule.becomes}</p>"
    for text in rule.keeps:
        assert rule.apply(f"<p>{text}</p>") == f"<p>{text}</p>"
    assert rule.keeps
    assert len(rule.reason.split()) > 4


def test_the_name_of_a_cell_is_hidden_in_a_traceback():
    """The line stays, without the folder and the process of the kernel; so do other files."""
    text = 'File "/tmp/ipykernel_29174/1326589954.py", line 2, in mean\nFile "/a/b.py", line 3'

    assert committed(text) == 'File "a cell", line 2, in mean\nFile "/a/b.py", line 3'


def test_marks_below_a_line_of_a_traceback_are_masked():
    """Python 3.13 marks other parts of a line than 3.11."""
    assert normalised("    a / b\n    ~~^~~\nZeroDivisionError") == "    a / b\nZeroDivisionError"


@every_numbered
def test_a_changed_word_of_an_output_is_found(path):
    """Each word of each output that no rule names and no tag excludes is compared."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", []) if cell.cell_type == "code" else [VOLATILE]
        for output in cell.get("outputs", ()) if VOLATILE not in tags else ():
            shown = output.get("text") or output.get("data", {}).get("text/plain", "")
            word = re.search(r"[A-Za-z_]{4,}", normalised(shown, tags))
            if word is None:
                continue
            same = new_notebook(cells=[new_code_cell("", id=cell.id, outputs=[output])])
            other = copy.deepcopy(same)
            [changed] = other.cells[0].outputs
            where, key = (changed, "text") if "text" in changed else (changed.data, "text/plain")
            where[key] = shown.replace(word[0], "otherwise", 1)
            for each in (same, other):
                each.cells[0].metadata.tags = tags
            assert differences(same, other), (cell.id, word[0])


# ---- how it is compared ------------------------------------------------------------------------


def notebook_of(*outputs, tags=()):
    cell = new_code_cell("1", id="cell", outputs=list(outputs), metadata={"tags": list(tags)})
    return new_notebook(cells=[new_markdown_cell("text", id="text"), cell])


def picture(shade: int, size: int = 20) -> str:
    from matplotlib.image import imsave

    stream = io.BytesIO()
    imsave(stream, [[shade / 255] * size] * size, vmin=0, vmax=1, cmap="gray", format="png")
    return base64.b64encode(stream.getvalue()).decode()


def shown(**data):
    return new_output("display_data", {kind.replace("_", "/"): text for kind, text in data.items()})


def test_outputs_are_equal_but_for_what_the_rules_name():
    """An id differs in each run; a word does not, nor does a number of another kind."""
    before = notebook_of(shown(text_plain="message c3bf1f0f, attempt 1, 3 s"))

    assert not differences(
        before, notebook_of(shown(text_plain="message ac0016aa, attempt 1, 3 s"))
    )
    for text in ("message ac0016aa, attempt 2, 3 s", "message ac0016aa, attempt 1, 4 s"):
        assert differences(before, notebook_of(shown(text_plain=text)))
    assert differences(before, notebook_of())


def test_times_are_masked_only_where_the_cell_says_so():
    """The same text with another time is equal in a cell with the tag, and not without it."""
    before, after = (
        notebook_of(shown(text_plain=f"done in {n} s"), tags=["times"]) for n in (3, 4)
    )
    assert not differences(before, after)

    after.cells[1].metadata.tags = []
    assert differences(before, after)


def test_volatile_output_is_compared_by_its_kinds():
    """It may say anything, but a picture that is missing is missed."""
    before = notebook_of(shown(text_plain="1", image_png=picture(0)), tags=[VOLATILE])

    other = notebook_of(shown(text_plain="2", image_png=picture(255, size=9)), tags=[VOLATILE])
    assert not differences(before, other)
    assert differences(before, notebook_of(shown(text_plain="1"), tags=[VOLATILE]))


@pytest.mark.parametrize("tag", [VOLATILE, "times"])
def test_a_progress_may_be_shown_or_not(tag):
    """It appears only if a wait is long; another line of text that appears is found."""
    before = notebook_of(shown(text_plain="1", text_html="1"), tags=[tag])

    for line, is_found in [("runs-c3bf1f0f-ac0016aa: 0 messages open; done: fetch 58", False),
                           ("0 messages are open", True)]:  # fmt: skip
        after = notebook_of(shown(text_plain=line), *before.cells[1].outputs, tags=[tag])
        assert bool(differences(before, after)) == is_found


@pytest.mark.parametrize(("shade", "size", "is_equal"), [(101, 20, True), (150, 20, False),
                                                        (100, 21, False)])  # fmt: skip
def test_pictures_are_equal_within_a_small_distance(shade, size, is_equal):
    """Another font or version draws nearly the same; another picture does not."""
    before = notebook_of(shown(image_png=picture(100)))

    assert (
        differences(before, notebook_of(shown(image_png=picture(shade, size)))) == []
        or not is_equal
    )
    assert bool(differences(before, notebook_of(shown(image_png=picture(shade, size))))) != is_equal


def test_text_of_a_stream_is_one_output_and_times_of_cells_are_gone():
    """How many pieces arrive is chance."""
    outputs = [new_output("stream", name="stdout", text=each) for each in ("a\n", "b\n")]
    ran = notebook_of(outputs[0], shown(text_plain="1"), outputs[1])
    ran.cells[1].metadata["execution"] = {"iopub.status.idle": "2026"}
    ran.cells.append(new_code_cell("2", id="solution-1"))

    found = cleaned(ran)

    assert [each.id for each in found.cells] == ["text", "cell"]
    assert "execution" not in found.cells[1].metadata
    assert [each.get("text") for each in found.cells[1].outputs] == ["a\nb\n", None]


def test_refresh_writes_what_differs_and_keeps_what_is_equal(tmp_path):
    """A refresh changes the cells whose output has changed, and no others."""
    path = tmp_path / "notebook.ipynb"
    for before, after, kept in [("id c3bf1f0f", "id ac0016aa", True), ("one", "two", False)]:
        first, second = notebook_of(shown(text_plain=before)), notebook_of(shown(text_plain=after))
        first.cells[1].execution_count = second.cells[1].execution_count = 1
        nbformat.write(first, path)
        write(path, second)
        [cell] = code_cells(path)
        assert cell.outputs[0].data["text/plain"] == (before if kept else after)


def test_a_wrong_output_or_solution_fails_the_notebook(tmp_path):
    """nbmake runs the notebook once, and both are found."""
    solution = "<details><summary>Solution</summary>\n\n```python\n{}\n```\n\n</details>"
    folder = tmp_path / "notebooks"
    folder.mkdir()
    shutil.copy(ROOT / "notebooks" / "conftest.py", folder)
    for name, output, claim in [("0_good", "2", "assert x == 2"), ("1_output", "3", "assert x"),
                                ("2_solution", "2", "assert x == 3")]:  # fmt: skip
        cell = new_code_cell("x = 2\nx", id="cell", execution_count=1)
        cell.outputs = [new_output("execute_result", {"text/plain": output}, execution_count=1)]
        exercises = new_markdown_cell(solution.format(claim), id="exercises")
        notebook = new_notebook(cells=[cell, exercises])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
        nbformat.write(notebook, folder / f"{name}.ipynb")

    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = {ROOT / 'tests'}\n")
    command = [sys.executable, "-m", "pytest", "-q", "--nbmake", "-p", "no:cacheprovider", folder]
    run = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=tmp_path)

    assert "2 failed, 1 passed" in run.stdout
    assert "the output of the cell 'cell' was" in run.stdout
    assert "FAILED notebooks/1_output" in run.stdout
    assert "FAILED notebooks/2_solution" in run.stdout
