"""An attention kernel of a test's own, in the place of one of PyTorch's."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from torch import Tensor

Kernel = Callable[..., Tensor]


@contextmanager
def installed(kernel: Kernel) -> Iterator[str]:
    """Have *kernel*, called with query, key and value, under the name that this yields."""
    name, registry = AttentionBackendName._NATIVE_EFFICIENT, _AttentionBackendRegistry
    before = registry._backends[name], registry._supported_arg_names[name]
    registry._backends[name] = kernel
    registry._supported_arg_names[name] = {"query", "key", "value"}
    try:
        yield name.value
    finally:
        registry._backends[name], registry._supported_arg_names[name] = before
