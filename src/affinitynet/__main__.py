"""`python -m affinitynet` is the command line."""

from affinitynet.cli import main

main()
