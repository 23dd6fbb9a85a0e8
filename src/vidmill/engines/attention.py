"""Which attention kernel computes: the first of the profile's list that really runs here.

A name can be set and still fail at its first call (a wheel built for another card, a missing
library), minutes later in the first clip. So each is called once, on the device, with little.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vidmill.domain.errors import ModelInvalid
from vidmill.telemetry import get_logger

log = get_logger(__name__)

_DOWNLOADS = "_hub"
"""diffusers fetches kernels of these names from the hub at first use: code nobody has looked at."""

_PROBE_TOKENS = 256
_LARGEST_ERROR = 0.1
"""Of the mean size of the result. 8-bit kernels stay below 0.05 of it; a broken one does not."""

_FAILURES = (RuntimeError, ValueError, ImportError, TypeError, AttributeError, OSError)


def choose_attention(
    experts: Sequence[Any], names: Sequence[str], *, device: torch.device, dtype: torch.dtype
) -> str:
    """Set the first of *names* that works on *device* for every expert, and return it.

    Raises:
        ModelInvalid: None of them does.
    """
    for name in names:
        try:
            _try(experts, name, device=device, dtype=dtype)
        except _FAILURES as error:
            log.info("attention_unavailable", backend=name, reason=_first_line(error))
            continue
        log.info("attention_chosen", backend=name, experts=len(experts))
        return name
    raise ModelInvalid(f"none of the attention backends {', '.join(names)} runs here; add `native`")


@torch.no_grad()
def is_compilable(name: str, *, head_dim: int, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a compiler can follow a call of *name*; SageAttention's kernels forbid it."""
    from diffusers.models.attention_dispatch import dispatch_attention_fn

    traced = torch.compile(
        partial(dispatch_attention_fn, backend=name), backend="eager", fullgraph=True
    )
    try:
        traced(*_noise(head_dim, device, dtype))
    except RuntimeError as error:  # dynamo's own are, and loading them costs every start a second
        log.info("attention_not_compiled", backend=name, reason=_first_line(error))
        return False
    return True


def _try(experts: Sequence[Any], name: str, *, device: torch.device, dtype: torch.dtype) -> None:
    if name.endswith(_DOWNLOADS):
        raise ValueError("it would download a kernel; install its wheel and name that")
    for expert in experts:
        expert.set_attention_backend(name)
    error = _probe(name, head_dim=experts[0].config.attention_head_dim, device=device, dtype=dtype)
    if not error < _LARGEST_ERROR:  # NaN as well
        raise ValueError(f"it computes something else (relative error {error:.2g})")


@torch.no_grad()
def _probe(name: str, *, head_dim: int, device: torch.device, dtype: torch.dtype) -> float:
    """Return how far a call of *name* is from PyTorch's own, relative to the latter's mean."""
    from diffusers.models.attention_dispatch import dispatch_attention_fn

    query, key, value = _noise(head_dim, device, dtype)
    wanted, found = (
        dispatch_attention_fn(query, key, value, backend=backend).float()
        for backend in ("native", name)
    )
    return _mean(found - wanted) / _mean(wanted)


def _noise(head_dim: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Return a query, a key and a value of two heads."""
    noise = torch.Generator("cpu").manual_seed(0)
    shape = (1, _PROBE_TOKENS, 2, head_dim)
    return tuple(torch.randn(shape, generator=noise).to(device, dtype) for _ in range(3))


def _mean(values: Tensor) -> float:
    return float(values.abs().mean())


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
