"""The command line. User commands go through the SDK; heavy imports wait for their command."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and exit with one of `vidmill.cli.output.Exit`."""
    from vidmill.cli.app import run

    sys.exit(run(sys.argv[1:]))
