"""``python -m automup`` is ``automup``."""

from automup.cli import main

if __name__ == "__main__":
    main()
