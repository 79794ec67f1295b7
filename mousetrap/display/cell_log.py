"""The log in a cell: warnings on stdout, errors on stderr, which a notebook shows in red."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress

from mousetrap.display.notices import print_notice
from mousetrap.runtime.environment import is_kernel

_logger = logging.getLogger("mousetrap")


class CellLog(logging.Handler):
    """Prints what Python prints without a handler, unless the program has handlers of its own."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print *record*, unless the program has logging of its own."""
        if logging.root.handlers or _logger.handlers != [self]:
            return
        with suppress(Exception):  # as when Python ends, and ipykernel has closed its streams
            line = self.format(record)
            if record.levelno < logging.ERROR:
                print_notice(line)
            else:
                sys.stderr.write(f"{line}\n")
                sys.stderr.flush()


def install_cell_log() -> None:
    """Have warnings printed on stdout if this is a kernel; a second call does nothing."""
    if is_kernel() and not any(isinstance(each, CellLog) for each in _logger.handlers):
        _logger.addHandler(CellLog(logging.WARNING))
