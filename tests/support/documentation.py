"""The pages of the documentation: their entries, and their examples, which run page by page."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "deploy" / "docs"
ENTRY = re.compile(r"^```\{(entry|command)\} (.+?)$", re.MULTILINE)
BLOCK = re.compile(r"^```python\n(.*?)^```(?:\n\n```text\n(.*?)^```)?", re.MULTILINE | re.DOTALL)


class Example(NamedTuple):
    """A block of Python, what it prints (None: the page does not say), and its first line."""

    code: str
    printed: str | None
    line: int


def pages(folder: str = "") -> list[Path]:
    """Return the pages in *folder* and below, without what was built."""
    return sorted(each for each in (PAGES / folder).rglob("*.md") if "_build" not in each.parts)


def examples(page: Path) -> list[Example]:
    """Return the examples of *page*, in their order."""
    text = page.read_text(encoding="utf-8")
    return [
        Example(found[1], found[2], text[: found.start(1)].count("\n") + 1)
        for found in BLOCK.finditer(text)
    ]


def entries(kind: str) -> Iterator[tuple[str, Path, bool]]:
    """Yield each ``{entry}`` or ``{command}``: its name, its page, and if an example follows."""
    for page in pages():
        parts = ENTRY.split(page.read_text(encoding="utf-8"))[1:]
        for each, name, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
            if each == kind:
                yield name, page, BLOCK.search(text) is not None


def run_examples(page: Path, names: dict[str, Any]) -> None:
    """Run the examples of *page* one after the other; each prints what the page says."""
    module = f"page_{page.stem}"
    names |= {"__name__": module}
    sys.modules[module] = type(sys)(module)  # where dataclasses and annotations look
    try:
        for example in examples(page):
            # As many empty lines as stand before it on the page: a traceback has the page's lines.
            code = compile("\n" * (example.line - 1) + example.code, str(page), "exec")
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(code, names)
            if example.printed is not None:
                assert printed.getvalue() == example.printed, f"{page.name}:{example.line}"
    finally:
        del sys.modules[module]
