"""Wire formats: each translates one to and from orders and jobs. One entry here per dialect."""

from collections.abc import Callable, Sequence

from vidmill.api.desk import Desk
from vidmill.api.dialects.native_routes import native_routes
from vidmill.api.routing import Route

DIALECTS: tuple[Callable[[Desk], Sequence[Route]], ...] = (native_routes,)
"""Each gives its routes, bound to a desk."""
