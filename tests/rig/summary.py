"""What the trials of a test session found: one row for each fault, printed at its end.

The long tier also keeps its rows in ``tests/FAULTS.md``; a row that was not run again stays.
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from .checker import History, check

SEED = "RIG_SEED"  # the variable that has a session repeated as it was
FILE = Path(__file__).parents[1] / "FAULTS.md"
HEAD = """# What was planted, and what was lost

Written by `pytest -m long tests -k faults`, on another RabbitMQ with `RIG_RABBITMQ=3.10` before it
(a container; 4.0 and 4.3 deny what they deprecate). Each row is a test there; one that was not run
again, or only on another version, stays. *void*: the fault did not land, so the trial was made
again. *heal*: seconds from the end of the fault until the next effect. `RIG_SEED=` with the seed
repeats a row.

"""
COLUMNS = ("fault", "what", "broker", "trials", "void", "messages", "lost", "unexpected",
           "duplicates", "heal p50 / p95 / max", "seed")  # fmt: skip
ROWS: list[tuple[str, ...]] = []  # of this session


@dataclass
class Tally:
    """The row of one test: what its trials add up to."""

    fault: str
    what: str
    broker: str
    seed: int
    trials: int = 0
    void: int = 0
    messages: int = 0
    lost: int = 0
    unexpected: int = 0
    duplicates: int = 0
    heals: list[float] = field(default_factory=list)  # seconds

    def classify(self, history: History, trials: int = 1) -> None:
        """Add *history*, of so many trials, and fail if it is not clean."""
        verdict = check(history)
        self.trials += trials
        self.messages += len(history.attempted)
        self.lost += len(verdict.lost | verdict.left)
        self.unexpected += len(verdict.unexpected)
        self.duplicates += verdict.duplicates
        assert verdict.is_clean, f"{self.fault}, seed {self.seed}: {verdict}"

    def is_void(self, limit: int) -> None:
        """Count a trial in which nothing happened; more than *limit* are a fault of the rig."""
        self.void += 1
        assert self.void <= limit, f"{self.fault}: {self.void} times the fault did not land"

    def cells(self) -> tuple[str, ...]:
        """The row, as text."""
        heals = sorted(self.heals)
        heal = " / ".join(f"{_percentile(heals, p):.1f}" for p in (50, 95, 100)) if heals else ""
        numbers = (self.trials, self.void, self.messages, self.lost, self.unexpected,
                   self.duplicates)  # fmt: skip
        counted = (f"{each:,}" for each in numbers)
        return (self.fault, self.what, self.broker, *counted, heal, str(self.seed))


def seed() -> int:
    """The seed of this session: given by the environment, or drawn once and handed to children."""
    if not os.environ.get(SEED):
        os.environ[SEED] = str(int.from_bytes(os.urandom(4), "big"))
    return int(os.environ[SEED])


def packed(tally: Tally) -> str:
    return json.dumps(dataclasses.asdict(tally))


def pytest_runtest_logreport(report) -> None:
    """Take the row out of the report, which comes from whatever process ran the test."""
    for name, value in report.user_properties:
        if report.when == "teardown" and name == "fault":
            tally = Tally(**json.loads(value))
            if tally.trials:  # else it broke off before there was anything to tell
                ROWS.append(tally.cells())


def pytest_terminal_summary(terminalreporter, config) -> None:
    if not ROWS:
        return
    terminalreporter.section(f"faults (repeat with {SEED}={seed()})")
    for line in table(sorted(ROWS)):
        terminalreporter.write_line(line)
    if "long" in config.option.markexpr and "not long" not in config.option.markexpr:
        keep(ROWS)


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows as the lines of a table in Markdown."""
    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
             for row in (COLUMNS, ["-" * width for width in widths], *rows)]  # fmt: skip
    return [f"| {' | '.join(line)} |" for line in lines]


def keep(rows: list[tuple[str, ...]], file: Path = FILE) -> None:
    """Write *rows* into *file*, over those of the same test on the same series of RabbitMQ."""
    kept = {}
    if file.exists():
        lines = [line for line in file.read_text().splitlines() if line.startswith("|")]
        kept = {_place(row): row for line in lines[2:] if (row := _cells(line))}
    kept |= {_place(row): row for row in rows}
    file.write_text(HEAD + "\n".join(table(sorted(kept.values()))) + "\n")


def _place(row: tuple[str, ...]) -> tuple[str, ...]:
    fault, what, version = row[:3]
    return fault, what, ".".join(version.split(".")[:2])


def _cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in line.strip("|").split("|"))


def _percentile(ordered: list[float], percent: int) -> float:
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
