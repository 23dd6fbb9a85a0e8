"""`python -m vidmill` is the `vidmill` command."""

from vidmill.cli import main

main()
