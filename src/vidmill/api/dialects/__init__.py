"""Wire formats: each translates one to and from orders and jobs. One entry here per dialect."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vidmill.api.desk import Desk
from vidmill.api.dialects.dashscope_errors import DASHSCOPE
from vidmill.api.dialects.dashscope_routes import dashscope_routes
from vidmill.api.dialects.native_batch_routes import native_batch_routes
from vidmill.api.dialects.native_keys import native_key_routes
from vidmill.api.dialects.native_loras import native_lora_routes
from vidmill.api.dialects.native_routes import native_routes
from vidmill.api.dialects.native_storyboard_routes import native_storyboard_routes
from vidmill.api.dialects.openai_errors import OPENAI
from vidmill.api.dialects.openai_routes import PREFIXES as OPENAI_PREFIXES
from vidmill.api.dialects.openai_routes import openai_routes
from vidmill.api.errors import NATIVE, ErrorStyle
from vidmill.api.routing import Route


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """One wire format.

    Attributes:
        prefixes: Paths that are its own, unknown ones included; what is nobody's is native.
        routes: Gives its routes, bound to a desk.
        errors: How its errors look.
    """

    prefixes: tuple[str, ...]
    routes: Callable[[Desk], Sequence[Route]]
    errors: ErrorStyle


DIALECTS: tuple[Dialect, ...] = (
    Dialect(prefixes=("/v1/t2v",), routes=native_routes, errors=NATIVE),
    Dialect(prefixes=("/v1/t2v",), routes=native_batch_routes, errors=NATIVE),
    Dialect(prefixes=("/v1/t2v",), routes=native_storyboard_routes, errors=NATIVE),
    Dialect(prefixes=("/v1/t2v",), routes=native_key_routes, errors=NATIVE),
    Dialect(prefixes=("/v1/t2v",), routes=native_lora_routes, errors=NATIVE),
    Dialect(prefixes=("/api/v1",), routes=dashscope_routes, errors=DASHSCOPE),
    Dialect(prefixes=OPENAI_PREFIXES, routes=openai_routes, errors=OPENAI),
)


def style_of(path: str) -> ErrorStyle:
    """Return how errors look on *path*."""
    for dialect in DIALECTS:
        if path.startswith(dialect.prefixes):
            return dialect.errors
    return NATIVE
