"""Runs a notebook as a check: papermill under strict rules.

Several things that papermill accepts are errors here:

- A parameter that is unknown, mistyped or looks like a secret (`mousetrap.check.parameters`). No
  kernel is started.
- A function that the notebook marks as the same as one in a package, and that differs from it
  (`mousetrap.check.drift`). No kernel is started.
- A notebook that does not end. At the deadline its kernel is ended, with all processes that it
  started (`mousetrap.check.descendants`).
- A cell that raises ``SystemExit(0)``, that ends the kernel, or that its tag lets raise or skips.

Whether a cell failed is what the kernel replies (`mousetrap.check.kernel_reply`). What a notebook
lacks of the format gets its default, as in Jupyter (`mousetrap.check.notebook_format`).

The executed copy is kept in every case. It is complete, and it names the failing cell
(`mousetrap.check.executed_notebook`).

`check_grid` runs a notebook with many sets of parameters, or many notebooks, and writes a report
about all of them (`mousetrap.check.report`).

papermill runs in a child process (`mousetrap.check.child_main`). The parent can end it when it
hangs, and it ends the kernel when the parent is killed. Importing this package imports neither
papermill nor IPython nor Jinja2.
"""

from __future__ import annotations

from mousetrap.check.executed_notebook import CheckResult, FailingCell, default_output, read
from mousetrap.check.grid import GridProgress, check_grid
from mousetrap.check.grid_points import Point, parse_axes
from mousetrap.check.page import notebook_view
from mousetrap.check.parameters import Parameter, parameters_of, parse_parameters
from mousetrap.check.progress import CheckProgress
from mousetrap.check.results import (
    GridResult,
    PointResult,
    read_results,
    register_html_renderer,
)
from mousetrap.check.run import check

__all__ = [
    "CheckProgress",
    "CheckResult",
    "FailingCell",
    "GridProgress",
    "GridResult",
    "Parameter",
    "Point",
    "PointResult",
    "check",
    "check_grid",
    "default_output",
    "parameters_of",
    "parse_axes",
    "parse_parameters",
    "read",
    "read_results",
]

register_html_renderer(notebook_view)
