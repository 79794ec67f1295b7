"""README and the other documents: the example runs, links resolve, figures were measured."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import make_measured
import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCUMENTS = [
    README,
    *(ROOT / ".github").glob("*.md"),
    *(ROOT / "mousetrap").glob("*.md"),
    *(ROOT / "tests").glob("*.md"),
    *(ROOT / "deploy" / "docs").glob("*.md"),
]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
every_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)


def test_readme_example_runs_in_at_most_fifteen_lines(settings, monkeypatch, tmp_path, capsys):
    """What a newcomer copies first works, and prints what its comment says."""
    example, *_ = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    for name, value in settings.to_environment().items():
        monkeypatch.setenv(name, value)
    (tmp_path / "readme_example.py").write_text(example)
    monkeypatch.syspath_prepend(tmp_path)

    import readme_example

    assert capsys.readouterr().out == "2 [5, 4]\n"
    assert len([line for line in example.splitlines() if line]) <= 15
    del sys.modules[readme_example.__name__]


def test_documents_are_all_there():
    """A reader needs only the repository."""
    names = {path.relative_to(ROOT).as_posix() for path in DOCUMENTS}

    assert names >= {
        "README.md", ".github/CONTRIBUTING.md", ".github/SECURITY.md", "mousetrap/ARCHITECTURE.md",
        "mousetrap/CHANGELOG.md", "tests/README.md", "tests/FAULTS.md", "tests/MEASURED.md",
        "deploy/docs/recipes.md", "deploy/docs/failures.md",
    }  # fmt: skip


@every_document
def test_links_resolve(path):
    """A relative link names a file of the repository, and an anchor names a heading of it."""
    for link in LINK.findall(path.read_text(encoding="utf-8")):
        if link.startswith(("https://", "http://")):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@every_document
def test_links_name_what_the_file_defines(path):
    """A link like [`Publisher.publish`](amqp/publisher.py) leads to a file that has that name."""
    for text, link in re.findall(r"\[`([\w.]+)`\]\(([^)\s]+\.py)\)", path.read_text("utf-8")):
        source = (path.parent / link).read_text(encoding="utf-8")
        names = {Path(link).stem, Path(link).name, *re.findall(r"(?:class|def) (\w+)", source)}
        assert {text} & names or set(text.split(".")) <= names, f"{text} in {link}"


def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub makes of a document's headings."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


def test_a_package_index_shows_no_link_that_leads_nowhere():
    """The long description of the distribution keeps the text of relative links, not the links."""
    shown = subprocess.run(
        [sys.executable, "-m", "hatch_fancy_pypi_readme"],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip

    assert "Prototype RabbitMQ producers and consumers" in shown
    assert [link for link in LINK.findall(shown) if not link.startswith("https://")] == []


def test_figures_are_those_of_the_results_files():
    """MEASURED.md and README say what tests/measured holds; README at most ten short rows."""
    for path, table in (
        (make_measured.MEASURED, make_measured.measured_table()),
        (README, make_measured.readme_table()),
    ):
        text = path.read_text(encoding="utf-8")
        assert make_measured.replaced(text, table) == text, "run: python tests/make_measured.py"

    rows = [row for row in make_measured.rows() if row["readme"]]
    assert len(rows) <= 10
    assert all(len(row["what"].split()) <= 25 and len(row["figure"].split()) <= 25 for row in rows)
