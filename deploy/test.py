"""Run the tests and every notebook: ``python3 deploy/test.py``.

Makes .venv, finds or starts a RabbitMQ, and runs pytest on tests/ and notebooks/; at the end it
lists the slowest tests. Arguments that are not listed below go to pytest:
``python3 deploy/test.py tests/worker/test_worker.py -x``.

``--quick`` answers in about four minutes, for a person who has changed a line: ruff, mypy, and the
tests with the marker `quick`, on the embedded broker. Those are the tests that need no kernel,
browser, container, worker process or private RabbitMQ node; ``tests/support/quick.py`` sets the
marker by this rule.
"""

from __future__ import annotations

import argparse
import os
import sys

import bootstrap

CHECKS = (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"])
SLOWEST = "--durations=25"
# Most of the time is waiting, so two processors keep four processes busy. Many fixtures are those
# of a file; tests/support/order.py puts the longest files first.
IN_PARALLEL = ["--numprocesses", "4", "--dist", "loadfile", "--no-loadscope-reorder"]


def main() -> int:
    """Prepare what is missing, then run pytest."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[2],
        usage="python3 deploy/test.py [--quick] [--broker KIND] [--coverage] [--junitxml FILE] "
        "[pytest arguments]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="lint, types and the quick tests, in about four minutes",
    )
    parser.add_argument(
        "--broker",
        metavar="KIND",
        help="which broker to test with: external, docker, local or embedded "
        "(default: MOUSETRAP_BROKER, or the first that works; with --quick: embedded)",
    )
    parser.add_argument(
        "--coverage",
        action="store_true",
        help="report which lines were run, in kernels and workers, too; takes longer",
    )
    parser.add_argument(
        "--junitxml", metavar="FILE", help="write the results there, in the format of JUnit"
    )
    arguments, for_pytest = parser.parse_known_args()
    kind = arguments.broker or os.environ.get("MOUSETRAP_BROKER")
    if arguments.quick:
        kind = kind or "embedded"

    bootstrap.make_environment()
    bootstrap.require_broker(kind)
    bootstrap.compile_package()
    command = [str(bootstrap.PYTHON), "-m", "pytest", SLOWEST]
    if arguments.coverage:
        command += ["--cov", "--cov-report=term"]
    if arguments.junitxml:
        command += [f"--junitxml={arguments.junitxml}"]
    if arguments.quick:
        command += ["-m", "quick", *IN_PARALLEL, "tests"]
    else:
        command += ["--nbmake"]
        if not for_pytest:
            command += IN_PARALLEL
    codes = [run_check(check) for check in CHECKS] if arguments.quick else []
    variables = {"MOUSETRAP_BROKER": kind} if kind else {}
    if arguments.quick:
        variables["MOUSETRAP_CONFORMANCE"] = "embedded"
    codes.append(bootstrap.run(command + for_pytest, **variables))
    return next((code for code in codes if code), 0)


def run_check(command: list[str]) -> int:
    """Run a tool of .venv and return its exit code."""
    bootstrap.say(" ".join(command))
    program, *arguments = command
    return bootstrap.run([str(bootstrap.BIN / program), *arguments])


if __name__ == "__main__":
    sys.exit(main())
