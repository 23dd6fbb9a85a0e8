"""What the device itself reaches: matrix products, attention, copies; and what this process is."""

import importlib.metadata
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch.nn.functional import ScalingType, scaled_mm

from bench.gpu.instruments import figure, settle

NOMINAL_TFLOPS: Mapping[str, tuple[float, float]] = {
    "H200": (989, 1979),
    "H100": (989, 1979),
    "B200": (2250, 4500),
    "A100": (312, 312),
    "L40S": (362, 733),
    "RTX 4090": (165, 330),
    "RTX 5090": (210, 419),
}
"""Dense bfloat16 and FP8 (bfloat16 where there is none) by the vendors' data sheets."""

_RUNS = 10


def about(device: torch.device, *, scale: str, weights: str) -> dict[str, str]:
    """Return what figures of this process belong to."""
    versions = {name: importlib.metadata.version(name) for name in ("diffusers", "transformers")}
    is_cuda = device.type == "cuda"
    return {
        "scale": scale,
        "weights": weights,
        "device": torch.cuda.get_device_name(device) if is_cuda else "cpu",
        "torch": torch.__version__,
        "python": platform.python_version(),
        **versions,
    }


def nominal_tflops(device_name: str) -> tuple[float, float] | None:
    """Return the data sheet's bfloat16 and FP8 rate of a device, if it is in the table."""
    return next((rates for name, rates in NOMINAL_TFLOPS.items() if name in device_name), None)


def memory_bytes(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0


def measure(device: torch.device, *, side: int) -> dict[str, Any]:
    """Return the rates of *device* with matrices of *side*; what it cannot do is None."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    flop = 2 * side**3
    bf16_s = _median_s(lambda: a @ b, device)
    fp8_s, rows_s = (_seconds_if_any(act, device) for act in _fp8_products(a, b))
    copy = torch.empty_like(a)
    copy_s = _median_s(lambda: copy.copy_(a), device)
    host = torch.empty_like(a, device="cpu", pin_memory=device.type == "cuda")
    upload_s = _median_s(lambda: copy.copy_(host, non_blocking=True), device)
    return {
        "matmul_bf16_tflops": figure(flop / bf16_s / 1e12),
        "matmul_fp8_tflops": figure(flop / fp8_s / 1e12) if fp8_s else None,
        "matmul_fp8_rows_tflops": figure(flop / rows_s / 1e12) if rows_s else None,
        "copy_gb_s": figure(2 * a.nbytes / copy_s / 1e9),
        "upload_gb_s": figure(a.nbytes / upload_s / 1e9),
        "memory_gb": figure(memory_bytes(device) / 1e9),
    }


def measure_attention(
    device: torch.device, backend: str, *, tokens: int, heads: int, head_width: int
) -> float:
    """Return TFLOP/s of diffusers' attention *backend* on bfloat16.

    Raises:
        Exception: Whatever the back end raises where it is not installed or does not run.
    """
    from diffusers.models.attention_dispatch import (  # noqa: PLC0415
        AttentionBackendName,
        dispatch_attention_fn,
    )

    shape = (1, tokens, heads, head_width)
    q, k, v = (torch.randn(shape, device=device, dtype=torch.bfloat16) for _ in range(3))
    name = AttentionBackendName(backend)
    seconds = _median_s(lambda: dispatch_attention_fn(q, k, v, backend=name), device)
    return 4 * tokens**2 * heads * head_width / seconds / 1e12


def _fp8_products(a: Any, b: Any) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return the product with one scale for each matrix, and as the engine has it: by rows."""
    a8 = a.to(torch.float8_e4m3fn)
    b8 = b.t().contiguous().to(torch.float8_e4m3fn).t()  # the product wants b by columns
    ones = torch.ones(len(a), 1, device=a.device)
    scales: Mapping[ScalingType, tuple[Any, Any]] = {
        ScalingType.TensorWise: (ones[0], ones[0]),
        ScalingType.RowWise: (ones, ones.t().contiguous()),
    }
    whole, by_rows = (
        partial(
            scaled_mm, a8, b8, of_a, kind, of_b, kind,
            output_dtype=torch.bfloat16, use_fast_accum=True,
        )
        for kind, (of_a, of_b) in scales.items()
    )  # fmt: skip
    return whole, by_rows


def _seconds_if_any(act: Callable[[], object], device: torch.device) -> float | None:
    try:
        return _median_s(act, device)
    except (RuntimeError, ValueError):
        return None


def _median_s(act: Callable[[], object], device: torch.device) -> float:
    for _ in range(3):
        act()
    seconds = []
    for _ in range(_RUNS):
        settle(device)
        started = time.perf_counter()
        act()
        settle(device)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)
