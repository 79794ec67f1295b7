"""Whether a cell failed, according to the kernel's reply to it.

The reply is the fact, and an error output is only what the cell shows of it: an unknown magic, a
group of exceptions, or an error that a handler of the notebook hides leave no error output.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EXIT_ERROR = "SystemExit: the cell called exit() or quit(), which ends the kernel"
_NO_TYPE = (None, "", "NoneType")  # what IPython reports when the value of a cell has no display


def failure_in(reply: Mapping[str, Any], cell: Any) -> str | None:
    """Return why *cell* failed, as in ``ValueError: no luck``; None if it did not.

    *reply* is the content of the kernel's reply to *cell*.
    """
    shown = [output for output in cell.outputs if output.output_type == "error"]
    error = f"{shown[0].ename}: {shown[0].evalue}" if shown else None
    if reply["status"] == "ok":
        exits = any(
            each.get("source") == "ask_exit" and not each.get("keepkernel")
            for each in reply.get("payload") or ()
        )
        return EXIT_ERROR if exits else error  # %%capture, or a display, hides that it failed
    if reply["status"] != "error":
        return f"NotRun: the kernel did not run the cell (its reply is {reply['status']!r})"
    if reply.get("ename") in _NO_TYPE and error is not None:
        return error
    return f"{reply.get('ename') or 'Error'}: {reply.get('evalue') or ''}"


def show_failure(reply: Mapping[str, Any], cell: Any) -> None:
    """Add an error output to *cell*, if it failed without one.

    So the executed copy shows the error, and papermill and nbmake, which look for an error output,
    find it.
    """
    failure = failure_in(reply, cell)
    if failure is None or any(output.output_type == "error" for output in cell.outputs):
        return
    from nbformat.v4 import new_output

    name, _, value = failure.partition(": ")
    lines = reply.get("traceback") or [failure]
    error = new_output("error", ename=name, evalue=value, traceback=[str(line) for line in lines])  # type: ignore[no-untyped-call]  # half annotated
    cell.outputs.append(error)
