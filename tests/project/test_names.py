"""Words: one name for one thing in the package, and plain words in what people read."""

from __future__ import annotations

import ast
import re
from collections import defaultdict

import nbformat
from test_architecture import FILES, PACKAGE, name, tree

ROOT = PACKAGE.parent
# Words that the project's own prose once used for standard terms; see CONTRIBUTING, Conventions.
AVOIDED = re.compile(
    r"\b(told|tell|anew|whoever|lest|somebody|come by|in hand|worn|outlived|bystander|buried"
    r"|killer)\b",
    re.IGNORECASE,
)
IN_A_NAME = re.compile(
    r"(^|_)(told|tell|anew|lest|worn|outlived|bystander|buried|bury|killer|suspects?)(_|$)", re.I
)
SAME_MEANING = {"T", "T_contra", "P", "R", "INSTALL_HINT", "LISTEN_QUEUE", "PUSH_QUEUE"}


COUNTED = re.compile(r" (messages|jobs|dead letters|results|consumers|connections|processes)\b")


def test_no_constant_or_class_has_the_name_of_another():
    """A public constant or class of one module is not the name of a different one elsewhere.

    The embedded broker has the broker's side of the same terms (Connection, Queue, Message).
    """
    homes = defaultdict(list)
    for path in FILES:
        if name(path).startswith("embedded_broker/"):
            continue
        for node in tree(path).body:
            if isinstance(node, ast.ClassDef):
                names = [node.name]
            elif isinstance(node, ast.Assign):
                names = [each.id for each in node.targets if isinstance(each, ast.Name)]
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names = [node.target.id]
            else:
                continue
            for each in names:
                if not each.startswith("_") and (each.isupper() or isinstance(node, ast.ClassDef)):
                    homes[each].append(name(path))

    twice = {each: where for each, where in homes.items() if len(where) > 1}
    assert {each: where for each, where in twice.items() if each not in SAME_MEANING} == {}


def test_no_name_has_a_word_of_our_own_invention():
    """Functions, classes, arguments and variables bear the field's terms."""
    found = set()
    for path in FILES:
        for node in ast.walk(tree(path)):
            for each in (
                getattr(node, "name", None), getattr(node, "arg", None), getattr(node, "id", None),
                getattr(node, "attr", None),
            ):  # fmt: skip
                if isinstance(each, str) and IN_A_NAME.search(each):
                    found.add(f"{name(path)}: {each}")

    assert sorted(found) == []


def test_what_is_counted_is_written_by_counted():
    """Nobody reads "1 messages": a number that may be one stands before no plural.

    A constant is never one; "1 of 1 messages" is read as it is meant.
    """
    found = []
    for path in FILES:
        for text in (each for each in ast.walk(tree(path)) if isinstance(each, ast.JoinedStr)):
            for before, number, after in zip(
                [ast.Constant(""), *text.values], text.values, text.values[1:], strict=False
            ):
                if (
                    isinstance(number, ast.FormattedValue)
                    and isinstance(after, ast.Constant)
                    and COUNTED.match(after.value)
                    and not ast.unparse(number.value).isupper()
                    and not (isinstance(before, ast.Constant) and before.value.endswith(" of "))
                ):
                    found.append(f"{name(path)}: {ast.unparse(text)}")

    assert found == []


def test_prose_avoids_words_that_a_stranger_reads_twice():
    """README, the notebooks and the package use such a word only where it is meant literally."""
    texts = {name(path): path.read_text(encoding="utf-8") for path in FILES}
    texts["README.md"] = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        texts[path.name] = "\n".join(cell.source for cell in cells)
    found = [
        f"{where}: {line.strip()[:100]}"
        for where, text in sorted(texts.items())
        for line in text.splitlines()
        if AVOIDED.search(line)
    ]

    assert len(found) < 40, "\n".join(found)
