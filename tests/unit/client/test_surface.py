"""The public face of the SDK."""

import importlib.resources
import inspect
import re
import subprocess
import sys

import pytest

from vidmill import client
from vidmill.client import (
    AsyncBatches,
    AsyncKeys,
    AsyncLoras,
    AsyncVideo,
    AsyncVideoGenerator,
    AsyncVidmill,
    AsyncWebhooks,
    Batches,
    Keys,
    Loras,
    Video,
    VideoGenerator,
    Vidmill,
    Webhooks,
)

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


COLOURS = (
    (Vidmill, AsyncVidmill),
    (Video, AsyncVideo),
    (Batches, AsyncBatches),
    (Webhooks, AsyncWebhooks),
    (Keys, AsyncKeys),
    (Loras, AsyncLoras),
    (VideoGenerator, AsyncVideoGenerator),
)
CALLBACKS = {"on_progress"}
"""May be coroutine functions in the async colour."""


def colourless(annotation: object) -> str:
    """Return an annotation as the sync colour writes it."""
    text = str(annotation).replace("Async", "")
    return re.sub(r"Generator\[(.+), None\]$", r"Generator[\1, None, None]", text).replace(
        ", None, None, None]", ", None, None]"
    )


def signature(method: object, *, is_async: bool) -> list[object]:
    assert callable(method)
    found = inspect.signature(method)
    names = [
        (one.name, one.kind, one.default, colourless(one.annotation))
        for one in found.parameters.values()
        if one.name not in CALLBACKS
    ]
    returned = colourless(found.return_annotation)
    is_stream = "Generator[" in returned or "Iterator[" in returned
    assert inspect.iscoroutinefunction(method) == (is_async and not is_stream), method
    return [*names, [one for one in found.parameters if one in CALLBACKS], returned]


@pytest.mark.parametrize(("kind", "twin"), COLOURS)
def test_both_colours_have_the_same_surface(kind: type, twin: type) -> None:
    assert public(kind) == public(twin)
    for name in public(kind):
        one, other = getattr(kind, name), getattr(twin, name)
        assert inspect.isfunction(one) == inspect.isfunction(other), name
        if inspect.isfunction(one):
            assert signature(one, is_async=False) == signature(other, is_async=True), name


@pytest.mark.parametrize("kind", [one for pair in COLOURS for one in pair])
def test_every_public_method_says_what_it_does(kind: type) -> None:
    plain = {"close", "save_poster", "save_preview", "task_id", "sha256"}
    undocumented = [
        name for name in public(kind) - plain if not inspect.getdoc(getattr(kind, name))
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


def test_type_checkers_are_told_that_it_is_typed() -> None:
    assert importlib.resources.files("vidmill").joinpath("py.typed").is_file()
