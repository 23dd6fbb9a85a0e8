"""Schema changes, oldest first. What differs by dialect lies in a folder of its name."""

import re
from collections.abc import Mapping
from pathlib import Path

from alembic import op

STATEMENT_END: Mapping[str, re.Pattern[str]] = {
    "sqlite": re.compile(r"(?<=^END;)$", re.MULTILINE),
    "postgresql": re.compile(r"^--;;$", re.MULTILINE),
}
"""Where one statement ends: `END;` alone on its line, or a `--;;`, since bodies hold semicolons."""

COMMENT = re.compile(r"^--.*$", re.MULTILINE)


def run_sql_file(name: str) -> None:
    """Run every statement of the file *name* in the present dialect's folder."""
    dialect = op.get_context().dialect.name
    path = Path(__file__).parent / dialect / name
    for statement in STATEMENT_END[dialect].split(path.read_text(encoding="utf-8")):
        if COMMENT.sub("", statement).strip():
            op.execute(statement.strip())
