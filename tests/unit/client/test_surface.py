"""The public face of the SDK."""

import inspect
import subprocess
import sys

from vidmill import client
from vidmill.client import AsyncVideo, AsyncVidmill, Video, Vidmill

HEAVY = ("torch", "numpy", "av", "fastapi", "sqlalchemy", "uvicorn", "rich", "typer", "structlog")


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_all_lists_every_public_name_in_order() -> None:
    found = {
        name
        for name, value in vars(client).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert list(client.__all__) == sorted(client.__all__)
    assert set(client.__all__) == found


def test_both_colours_have_the_same_surface() -> None:
    assert public(Vidmill) == public(AsyncVidmill)
    assert public(Video) == public(AsyncVideo)
    for kind, twin in ((Vidmill, AsyncVidmill), (Video, AsyncVideo)):
        for name in public(kind):
            one, other = getattr(kind, name), getattr(twin, name)
            if inspect.isfunction(one):
                assert list(inspect.signature(one).parameters) == list(
                    inspect.signature(other).parameters
                ), name


def test_every_public_method_says_what_it_does() -> None:
    undocumented = [
        f"{kind.__name__}.{name}"
        for kind in (Vidmill, Video)
        for name in public(kind) - {"close", "save_poster", "save_preview", "task_id", "sha256"}
        if not inspect.getdoc(getattr(kind, name))
    ]
    assert undocumented == []


def test_importing_the_sdk_brings_nothing_else_of_vidmill() -> None:
    code = (
        "import sys, vidmill.client;"
        f"print([m for m in sys.modules if m.split('.')[0] in {HEAVY!r}"
        " or m.startswith('vidmill.') and not m.startswith('vidmill.client')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
