"""Refreshes the committed outputs of the notebooks to read: ``python tests/make_outputs.py``.

It runs them by nbmake, as the tests do, and writes the outputs of each cell that differ by the
rules of `support.output_rules`; the others stay, so that a change is a small one. ``--all`` writes
all of them, also pictures of timings. Names of notebooks choose some: ``08_watching``. The broker
is the one that `mousetrap.broker.ensure` finds; it must be a RabbitMQ with the management plugin,
as ``mousetrap broker up --kind docker`` starts it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # the tests' own packages

from support.committed_outputs import REFRESH  # noqa: E402


def main() -> int:
    """Run the notebooks; return pytest's exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--all", action="store_true", help="write the outputs that are equal, too")
    parser.add_argument("names", nargs="*", help="the notebooks, for example 08_watching")
    arguments = parser.parse_args()
    names = arguments.names or sorted(p.stem for p in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
    command = [sys.executable, "-m", "pytest", "-q", "--nbmake", "-p", "no:cacheprovider"]
    command += [f"notebooks/{Path(name).stem}.ipynb" for name in names]
    environment = os.environ | {REFRESH: "all" if arguments.all else "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
