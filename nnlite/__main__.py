"""``python -m nnlite``."""

from nnlite.cli import main

main()
