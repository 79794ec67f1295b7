"""The table of faults: one row for each fault test of a session, printed at its end.

The long tier also writes its rows to ``tests/FAULTS.md``; rows of tests that were not run stay.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from .checker import History, check
from .seed import SEED_VARIABLE, session_seed

FILE = Path(__file__).parents[1] / "FAULTS.md"
HEAD = """# The injected faults, and what was lost

Written by `pytest -m long tests -k faults`; with `RIG_RABBITMQ=3.10` in front of it, on a container
of that RabbitMQ (those of 4.0 and 4.3 refuse deprecated features). Each row is a test. The row of a
test that was not run, or only on another version, stays as it is. *not triggered*: trials in which
the fault did not happen; they were repeated. *heal*: seconds from the end of the fault until the
next result. `RIG_SEED=` with the seed of a row repeats it.

"""
COLUMNS = ("fault", "what", "broker", "trials", "not triggered", "messages", "lost", "unexpected",
           "duplicates", "heal p50 / p95 / max", "seed")  # fmt: skip
ROWS: list[tuple[str, ...]] = []  # of this session


@dataclass
class TableRow:
    """The row of one test: the sums over its trials."""

    fault: str
    what: str
    broker: str
    seed: int
    trials: int = 0
    not_triggered: int = 0
    messages: int = 0
    lost: int = 0
    unexpected: int = 0
    duplicates: int = 0
    heal_seconds: list[float] = field(default_factory=list)

    def add(self, history: History, trials: int = 1) -> None:
        """Add *history*, of so many *trials*; fail if it is not clean."""
        verdict = check(history)
        self.trials += trials
        self.messages += len(history.attempted)
        self.lost += len(verdict.lost | verdict.left)
        self.unexpected += len(verdict.unexpected)
        self.duplicates += verdict.duplicates
        assert verdict.is_clean, f"{self.fault}, seed {self.seed}: {verdict}"

    def count_not_triggered(self, limit: int) -> None:
        """Count a trial in which the fault did not happen; fail if there are more than *limit*."""
        self.not_triggered += 1
        assert self.not_triggered <= limit, (
            f"{self.fault}: {self.not_triggered} times the fault was not triggered"
        )

    def cells(self) -> tuple[str, ...]:
        """Return the row as texts."""
        ordered = sorted(self.heal_seconds)
        heal = (
            " / ".join(f"{_percentile(ordered, p):.1f}" for p in (50, 95, 100)) if ordered else ""
        )
        numbers = (self.trials, self.not_triggered, self.messages, self.lost, self.unexpected,
                   self.duplicates)  # fmt: skip
        counted = (f"{each:,}" for each in numbers)
        return (self.fault, self.what, self.broker, *counted, heal, str(self.seed))


def packed(row: TableRow) -> str:
    """Return the row as JSON, which pytest-xdist can pass between processes."""
    return json.dumps(dataclasses.asdict(row))


def pytest_runtest_logreport(report) -> None:
    """Take the row from the report, which comes from the process that ran the test."""
    for name, value in report.user_properties:
        if report.when == "teardown" and name == "fault":
            row = TableRow(**json.loads(value))
            if row.trials:  # else the test failed before its first trial ended
                ROWS.append(row.cells())


def pytest_terminal_summary(terminalreporter, config) -> None:
    """Print the table; in the long tier, write it to the file, too."""
    if not ROWS:
        return
    terminalreporter.section(f"faults (repeat with {SEED_VARIABLE}={session_seed()})")
    for line in table(sorted(ROWS)):
        terminalreporter.write_line(line)
    if "long" in config.option.markexpr and "not long" not in config.option.markexpr:
        write(ROWS)


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """Return *rows* as the lines of a Markdown table."""
    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
             for row in (COLUMNS, ["-" * width for width in widths], *rows)]  # fmt: skip
    return [f"| {' | '.join(line)} |" for line in lines]


def write(rows: list[tuple[str, ...]], file: Path = FILE) -> None:
    """Write *rows* to *file*; each replaces that of the same test on the same RabbitMQ series."""
    merged = {}
    if file.exists():
        lines = [line for line in file.read_text().splitlines() if line.startswith("|")]
        merged = {_key(row): row for line in lines[2:] if (row := _cells(line))}
    merged |= {_key(row): row for row in rows}
    file.write_text(HEAD + "\n".join(table(sorted(merged.values()))) + "\n")


def _key(row: tuple[str, ...]) -> tuple[str, ...]:
    fault, what, version = row[:3]
    return fault, what, ".".join(version.split(".")[:2])


def _cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in line.strip("|").split("|"))


def _percentile(ordered: list[float], percent: int) -> float:
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
