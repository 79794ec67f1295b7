"""Run the tests and every notebook: ``python3 deploy/test.py``.

Makes .venv, finds or starts a RabbitMQ, and runs pytest on tests/ and notebooks/.
Arguments that are not ours go to pytest: ``python3 deploy/test.py tests/worker/test_worker.py -x``.
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
        usage="python3 deploy/test.py [--broker KIND] [--coverage] [pytest arguments]",
    )
    parser.add_argument(
        "--broker",
        metavar="KIND",
        help="which RabbitMQ to test with (default: MOUSETRAP_BROKER, or the first that works)",
    )
    parser.add_argument(
        "--coverage",
        action="store_true",
        help="say what was run, in kernels and workers, too; takes longer",
    )
    arguments, for_pytest = parser.parse_known_args()
    kind = arguments.broker or os.environ.get("MOUSETRAP_BROKER")

    bootstrap.make_environment()
    bootstrap.require_broker(kind)
    command = [str(bootstrap.PYTHON), "-m", "pytest", "--nbmake"]
    if arguments.coverage:
        command += ["--cov", "--cov-report=term"]
    if not for_pytest:  # half of the time is waiting, and many fixtures are those of a file
        command += ["--numprocesses", "2", "--dist", "loadfile"]
    return bootstrap.run(command + for_pytest, **({"MOUSETRAP_BROKER": kind} if kind else {}))


if __name__ == "__main__":
    sys.exit(main())
