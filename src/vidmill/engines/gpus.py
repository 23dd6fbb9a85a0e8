"""The GPUs that torch sees here, and the memory that is free on them."""

from dataclasses import dataclass

import torch

from vidmill.engines.fp8 import CAPABILITY


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU. `device` is torch's name for it, `cuda:0`."""

    device: str
    card: str
    capability: tuple[int, int]
    total_bytes: int
    free_bytes: int


def visible_gpus() -> dict[str, Gpu]:
    """Return them by device; asking takes some hundred MB of each while this process lives."""
    if not torch.cuda.is_available():
        return {}
    return {f"cuda:{number}": _gpu(number) for number in range(torch.cuda.device_count())}


def cuda_of_torch() -> str | None:
    """Return the version of CUDA that torch is built for; None = it is built without."""
    return torch.version.cuda


def can_multiply_fp8(gpu: Gpu) -> bool:
    """Return whether *gpu* has arithmetic for 8-bit floats."""
    return gpu.capability >= CAPABILITY


def _gpu(number: int) -> Gpu:
    free_bytes, total_bytes = torch.cuda.mem_get_info(number)
    return Gpu(
        device=f"cuda:{number}",
        card=torch.cuda.get_device_name(number),
        capability=torch.cuda.get_device_capability(number),
        total_bytes=total_bytes,
        free_bytes=free_bytes,
    )
