"""The page on the SDK shows programs that are right, and all there is."""

import ast
import re
from pathlib import Path

import pytest

from vidmill import client
from vidmill.client import Batches, Keys, Storyboards, Vidmill, Webhooks

PAGE = (Path(__file__).parents[3] / "docs" / "sdk.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_every_program_on_the_page_is_python_and_imports_what_there_is(block: str) -> None:
    tree = ast.parse(block)
    imported = [
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "vidmill.client"
        for alias in node.names
    ]
    assert set(imported) <= set(client.__all__)


@pytest.mark.parametrize("kind", [Vidmill, Batches, Storyboards, Webhooks, Keys])
def test_the_page_names_every_call(kind: type) -> None:
    names = {name for name in dir(kind) if not name.startswith("_")} - {"close", "connection"}
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", PAGE)] == []
