"""Results of a grid of notebook runs, as `mousetrap.check.report` takes them."""

from __future__ import annotations

import base64
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook, new_output

from mousetrap.check import CheckResult, FailingCell, GridResult, PointResult

PNG = b"\x89PNG\r\n\x1a\n" + b"not that anybody looks"

HOSTILE = [
    "<script>alert(1)</script>",
    "</style><script>alert(1)</script>",
    "</pre></details><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "' onmouseover='alert(1)",
    "<svg/onload=alert(1)>",
    "<iframe src=javascript:alert(1)>",
    "<meta http-equiv=refresh content=0;url=http://evil>",
    "javascript:alert(1)",
    "<!-- --><base href=http://evil>",
    "]]><x>",
    "&lt;script&gt;&#x3c;b&#x3e;",
    "\x00\x07\x08\x0b\x0c\x1b[31m\x1b]8;;http://evil\x07",
    "\x7f\x85\x9b31m",
    "\u202egnp.exe\u2066x\u2069\u200f",
    "\u2028\u2029",
    "\ud800 \udfff",
    "\ufffe\uffff",
    "{{constructor.constructor('alert(1)')()}}",
    "${alert(1)}",
]


def make_grid(folder, text=None, summary=None, ended=None):
    """Return a grid of two points, one of them failed, with *text* wherever text can come from."""
    word = text if text is not None else "harmless"
    summary = summary or {
        "sent": 100, "done": 95, "dead": 3, "lost": 0, "seconds": 1.5,
        "latency": {"p50": 0.1, "p99": 0.25}, "reasons": {word: 3}, word: word,
        "stages": {word: {"done": 95, word: word, "wait": {"p50": 0.1, word: word}}, "other": word},
    }  # fmt: skip
    copy = folder / "1-prefetch=1.ipynb"
    if folder.exists():
        write_copy(copy, PNG)
    notebook = Path("notebooks/check_it.ipynb")
    axis = "prefetch" if text is None else word
    failing = FailingCell(4, 3, "assert lost == 0" if text is None else word,
                          "AssertionError: lost 5" if text is None else word)  # fmt: skip
    error = f"{notebook} failed in cell 4 (In [3]): {failing.line}\n{failing.error}"
    checks = (
        CheckResult(notebook, copy, {axis: 1, "name": word}, 5.0, 5, summary),
        CheckResult(notebook, folder / "2-prefetch=10.ipynb", {axis: 10, "name": word}, 4.0, 3,
                    summary, failing, error),
    )  # fmt: skip
    points = tuple(
        PointResult(number, word, {axis: check.parameters[axis]}, f"grid-{number}", True, check)
        for number, check in enumerate(checks, start=1)
    )
    return GridResult((axis,), points, folder, "2026-11-25T07:00:00+00:00", 9.0, 2, ended)


def write_copy(path, *pngs):
    """Write an executed copy in which a cell displayed each of *pngs*."""
    outputs = [
        new_output("display_data", data={"image/png": base64.b64encode(png).decode()})
        for png in pngs
    ]
    nbformat.write(new_notebook(cells=[new_code_cell("plot()", outputs=outputs)]), path)
    return path
