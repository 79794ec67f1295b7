"""Writes the results of a grid as JUnit XML, which CI systems show and count."""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement, indent, tostring

from mousetrap.check.results import GridResult, PointResult
from mousetrap.check.safe_text import safe_text


def junit(grid: GridResult) -> str:
    """Return one test case per point: a failure if a cell raised, an error after a deadline.

    A point that did not run has an error. It is not skipped, because for CI that is a success.
    """
    cases = [_case(point) for point in grid]
    failures = sum(case.find("failure") is not None for case in cases)
    errors = sum(case.find("error") is not None for case in cases)
    suite = Element(
        "testsuite", name="mousetrap check", tests=str(len(cases)), failures=str(failures),
        errors=str(errors), skipped="0", time=f"{grid.seconds:.3f}",
        timestamp=safe_text(grid.started_at.removesuffix("+00:00")),
    )  # fmt: skip
    suite.extend(cases)
    suites = Element("testsuites")
    suites.append(suite)
    indent(suites)
    text = tostring(suites, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def _case(point: PointResult) -> Element:
    check = point.check
    module = check.notebook.with_suffix("").as_posix().replace("/", ".")
    case = Element(
        "testcase", classname=safe_text(module),
        name=safe_text(point.name), file=safe_text(check.notebook), time=f"{check.seconds:.3f}",
    )  # fmt: skip
    properties = SubElement(case, "properties")
    pairs = [("namespace", point.namespace), *check.parameters.items()]
    pairs += [(f"summary.{name}", value) for name, value in point.figures.items()]
    for name, value in pairs:
        SubElement(properties, "property", name=safe_text(name), value=safe_text(value))
    if not point.passed:
        kind = "failure" if point.raised else "error"
        problem = SubElement(case, kind, message=safe_text(point.reason.partition("\n")[0], 300))
        problem.text = safe_text(check.error or point.verdict)
        if point.has_started:
            SubElement(case, "system-out").text = safe_text(f"executed copy: {check.output}")
    return case
