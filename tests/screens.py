"""What commands print where a person looks."""

import io
import re


class Screen(io.StringIO):
    """A terminal, as far as it is asked; put it in the place of `sys.stdout`."""

    def isatty(self) -> bool:
        return True

    @property
    def lines(self) -> list[str]:
        """What was printed, without colours."""
        return re.sub(r"\x1b\[[0-9;]*m", "", self.getvalue()).splitlines()
