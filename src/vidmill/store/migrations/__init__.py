"""Schema changes, oldest first. What differs by dialect lies in a folder of its name."""

import re
from pathlib import Path

from alembic import op

STATEMENT_END = re.compile(r"(?<=^END;)$", re.MULTILINE)
"""Where one trigger ends: `END;` alone on its line."""


def run_sql_file(name: str) -> None:
    """Run every trigger definition of the file *name* in the present dialect's folder."""
    path = Path(__file__).parent / op.get_context().dialect.name / name
    for statement in STATEMENT_END.split(path.read_text(encoding="utf-8")):
        if statement.strip():
            op.execute(statement.strip())
