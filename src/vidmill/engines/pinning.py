"""Host memory that a GPU copies from by itself, and no more of it than there are bytes.

torch rounds each pinned allocation up to a power of two: A14B's FFN matrices, 141.6 MB, would take
268, and 57 GB of offloaded experts 87. So tensors are laid side by side in slabs of such sizes.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_SLAB_BYTES = 2**30
"""The table of the text encoder is larger and has one of its own: 2.10 GB, which become 2.15."""

_ALIGNMENT_BYTES = 512

Allocate = Callable[[int], Tensor]


def pin(module: nn.Module, *, allocate: Allocate | None = None) -> None:
    """Move the weights and buffers of *module*, which lies on the host, into pinned memory.

    *allocate* gives so many bytes; torch's pinned ones by default.
    """
    allocate = allocate or _pinned
    tensors = [*module.parameters(), *module.buffers()]
    left = sum(map(_room, tensors))
    slab, used = torch.empty(0, dtype=torch.uint8), 0
    for tensor in tensors:
        if used + tensor.nbytes > slab.nbytes:
            slab, used = allocate(max(tensor.nbytes, min(_SLAB_BYTES, _power_of_two(left)))), 0
        place = slab[used : used + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        tensor.data = place.copy_(tensor.data)
        used += _room(tensor)
        left -= _room(tensor)


def give_back() -> None:
    """Give pinned memory back to the system that nothing lies in; torch would keep it for later."""
    # Before torch 2.12, which a machine that is lent for `bench.gpu` may have, by its older name.
    empty: Any = getattr(torch.accelerator, "empty_host_cache", None) or torch._C._host_emptyCache  # noqa: SLF001
    empty()


def _pinned(size_bytes: int) -> Tensor:
    return torch.empty(size_bytes, dtype=torch.uint8, pin_memory=True)


def _room(tensor: Tensor) -> int:
    return -(-tensor.nbytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
