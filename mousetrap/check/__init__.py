"""Run a notebook as a check: papermill under strict rules.

What papermill lets pass is an error here. A parameter that is unknown, mistyped or looks like a
secret: no kernel is started (`mousetrap.check.parameters`), nor where a function is said to be the
package's and is not (`mousetrap.check.drift`). A notebook that does not end: at the
deadline its kernel and all it started are ended (`mousetrap.check.descendants`). A cell that
leaves by ``SystemExit(0)``, or takes the kernel with it: that is a failure. And the executed copy
is always kept, in one piece, with the failing cell named (`mousetrap.check.executed_notebook`).

`check_grid` runs one notebook with many sets of parameters, or many notebooks, and reports on all
of them (`mousetrap.check.report`).

papermill runs in a process of its own (`mousetrap.check.child_main`): it can be ended when it
hangs, and it ends the kernel when we are killed. Importing this module imports neither
papermill nor IPython.
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
