"""``python -m nnlite.cli``."""

from nnlite.cli import main

main()
