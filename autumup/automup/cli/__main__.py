"""``python -m automup.cli``."""

from automup.cli import main

main()
