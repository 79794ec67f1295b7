"""``python -m mousetrap`` is the same as ``mousetrap``, which `pyproject.toml` installs."""

import os
import signal


def main() -> None:
    """Run the command line; a signal that comes while it is imported ends the program at once."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: os._exit(128 + number))
    from mousetrap.cli import main as run

    run()


if __name__ == "__main__":
    main()
