"""Run the whole pipeline on a new machine: ``python3 deploy/demo.py``.

Makes .venv, finds or starts a RabbitMQ, sends jobs through the fetch and the process worker, and
leaves an executed notebook that lists the outcome of every job.
"""

from __future__ import annotations

import argparse
import sys

import bootstrap


def main() -> int:
    """Prepare what is missing, then run ``mousetrap demo``."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[2], usage="python3 deploy/demo.py [options]"
    )
    parser.add_argument(
        "--broker",
        metavar="KIND",
        help="external (the one that RABBITMQ_URL or RABBITMQ_HOST names), docker, local (a "
        "private node of the installed rabbitmq-server) or embedded; default: the first that works",
    )
    parser.add_argument("--jobs", type=int, metavar="N", help="how many jobs to send")
    parser.add_argument(
        "-p", "--parameter", action="append", default=[], metavar="NAME=VALUE",
        help="a parameter of notebooks/check_pipeline.ipynb; may be repeated",
    )  # fmt: skip
    arguments = parser.parse_args()

    bootstrap.make_environment()
    bootstrap.require_broker(arguments.broker)
    command = [str(bootstrap.BIN / "mousetrap"), "demo"]
    if arguments.broker:
        command += ["--broker", arguments.broker]
    if arguments.jobs is not None:
        arguments.parameter.append(f"jobs={arguments.jobs}")
    for parameter in arguments.parameter:
        command += ["-p", parameter]
    return bootstrap.run(command)


if __name__ == "__main__":
    sys.exit(main())
