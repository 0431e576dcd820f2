"""`python -m swrbatch`."""

from .cli import main

main()
