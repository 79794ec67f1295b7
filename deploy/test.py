"""Run the tests and every notebook: ``python3 deploy/test.py``.

Makes .venv, finds or starts a RabbitMQ, and runs pytest on tests/ and notebooks/ with coverage.
Arguments that are not ours go to pytest: ``python3 deploy/test.py tests/test_worker.py -x``.
"""

from __future__ import annotations

import argparse
import os
import sys

import bootstrap


def main() -> int:
    """Prepare what is missing, then run pytest."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[2],
        usage="python3 deploy/test.py [--broker KIND] [pytest arguments]",
    )
    parser.add_argument(
        "--broker",
        choices=["external", "docker", "local", "embedded"],
        help="which RabbitMQ to test with (default: MOUSETRAP_BROKER, or the first that works)",
    )
    arguments, for_pytest = parser.parse_known_args()
    kind = arguments.broker or os.environ.get("MOUSETRAP_BROKER")

    bootstrap.make_environment()
    if kind != "embedded":
        bootstrap.require_broker(kind)
    command = [str(bootstrap.PYTHON), "-m", "pytest", "--nbmake"]
    if not for_pytest:  # coverage of a part says nothing
        command += ["--cov", "--cov-report=term"]
        command += ["--numprocesses", "2", "--dist", "worksteal"]  # half of the time is waiting
    return bootstrap.run(command + for_pytest, **({"MOUSETRAP_BROKER": kind} if kind else {}))


if __name__ == "__main__":
    sys.exit(main())
