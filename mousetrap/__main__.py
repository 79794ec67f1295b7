"""``python -m mousetrap`` is the same as ``mousetrap``, which `pyproject.toml` installs."""

import atexit
import os
import signal

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def main() -> None:
    """Run the command line; a signal that comes while it is imported ends the program at once."""
    # Registered first, so it runs last: Python then takes its signal handlers away, and a signal
    # would end a command that has done its work, by another code than the documented one.
    atexit.register(_ignore_signals)
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: os._exit(128 + number))
    from mousetrap.cli import main as run

    run()


def _ignore_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    main()
