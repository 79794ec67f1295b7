"""Lines for a person that are no data and no error, such as which broker is used."""

from __future__ import annotations

import sys

from mousetrap.runtime.environment import is_kernel


def print_notice(line: str) -> None:
    """Print *line* on stderr, as stdout is for data; in a notebook on stdout.

    A notebook shows what is written to stderr on red, which there means an error.
    """
    stream = sys.stdout if is_kernel() else sys.stderr
    if stream is not None:  # as in a program without a console on Windows
        stream.write(f"{line}\n")
        stream.flush()
