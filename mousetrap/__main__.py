"""``python -m mousetrap`` is the same as ``mousetrap``."""

from mousetrap.cli import main

if __name__ == "__main__":
    main()
