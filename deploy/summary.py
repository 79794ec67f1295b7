"""Print the results of tests as Markdown: ``python3 deploy/summary.py TITLE FILE...``.

The files are in JUnit's format, as ``pytest --junitxml`` and ``mousetrap check --report`` write
them. CI appends what this prints to the page of the run.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

MAX_LISTED = 30  # failures and reasons; GitHub shows at most 1 MiB for a step


def main(title: str, *files: str) -> int:
    """Print a table with a row for each file, the failures, and why tests were skipped."""
    sys.stdout.reconfigure(encoding="utf-8")  # which Windows does not use for a file
    print(f"### {title}\n")
    print("| results | tests | passed | failed | skipped | minutes |\n|---|--:|--:|--:|--:|--:|")
    failures: list[str] = []
    reasons: Counter[str] = Counter()
    for file in map(Path, files):
        try:
            cases = list(ElementTree.parse(file).iter("testcase"))  # noqa: S314 -- our own files
        except (OSError, ElementTree.ParseError):
            print(f"| {file.as_posix()} | none: the step that writes it failed | | | | |")
            continue
        bad = [case for case in cases if problem(case) is not None]
        skipped = [skip for case in cases if (skip := case.find("skipped")) is not None]
        minutes = sum(float(case.get("time") or 0) for case in cases) / 60
        passed = len(cases) - len(bad) - len(skipped)
        print(f"| {file.as_posix()} | {len(cases)} | {passed} | {len(bad)} | {len(skipped)} "
              f"| {minutes:.1f} |")  # fmt: skip
        failures += [f"- `{name(case)}`: {first_line(problem(case))}" for case in bad]
        reasons.update(first_line(skip) for skip in skipped)
    print_list("Failed", failures)
    print_list("Skipped", [f"- {count} × {reason}" for reason, count in reasons.most_common()])
    return 0


def problem(case: ElementTree.Element) -> ElementTree.Element | None:
    """Return the failure or the error of a test; None if it passed or was skipped."""
    failure = case.find("failure")
    return case.find("error") if failure is None else failure


def name(case: ElementTree.Element) -> str:
    """Return ``tests.project.test_readme.test_links_resolve[README.md]``."""
    return ".".join(filter(None, (case.get("classname"), case.get("name"))))


def first_line(found: ElementTree.Element | None) -> str:
    """Return the first line of a message, as Markdown that is no markup."""
    text = "" if found is None else found.get("message") or found.text or ""
    line = text.strip().partition("\n")[0][:200]
    return "".join(f"&#{ord(each)};" if each in "<>&|*_`[]" else each for each in line)


def print_list(title: str, lines: list[str]) -> None:
    """Print *lines*, at most `MAX_LISTED` of them, under a title; nothing if there is none."""
    if lines:
        print(f"\n**{title}**\n")
        print("\n".join(lines[:MAX_LISTED]))
        if len(lines) > MAX_LISTED:
            print(f"- and {len(lines) - MAX_LISTED} more")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
