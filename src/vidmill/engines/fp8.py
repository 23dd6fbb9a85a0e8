"""Linear layers computed in 8-bit floats: half the bytes of bf16 and up to twice the speed.

The format is E4M3 of the OCP 8-bit specification (torch's `float8_e4m3fn`: 3 bits of mantissa,
largest 448, no infinity). Weights have a scale per output row, activations one per token, taken
from the token itself: nothing is calibrated.

Scales are powers of two. That costs a float format no precision, and makes scaling exact in bf16,
so that no float32 copy of an activation (4 GB at 720p) ever exists.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import ScalingType, scaled_mm

from vidmill.domain.errors import ModelInvalid

FP8 = torch.float8_e4m3fn

_LARGEST = torch.finfo(FP8).max
_SMALLEST_SCALE = 2.0**-15
"""Its inverse is still a float16. Rows whose largest value is below 5e-7 lose precision by it."""

CAPABILITY = (8, 9)
"""Ada; the first NVIDIA cards that multiply in 8-bit floats."""

_UNIT = 16
"""Both sides of a weight must divide by it for cuBLAS and CUTLASS; others stay as they are."""


class Fp8Linear(nn.Module):
    """What `nn.Linear` does, with an 8-bit weight and activations rounded to 8 bits on the way.

    The relative error of one layer's output is 3.6 to 3.8 % for normal inputs, by how its weights
    are spread and whatever its width: that of two independently rounded factors of 3 mantissa bits.
    """

    weight: Tensor
    weight_scale: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight, scale = _quantize(linear.weight.detach())
        self.register_buffer("weight", weight)
        self.register_buffer("weight_scale", scale.T.contiguous())  # (1, out)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())

    def forward(self, values: Tensor) -> Tensor:
        rows, scale = _quantize(values.reshape(-1, self.in_features))
        product = scaled_mm(
            rows,
            self.weight.t(),
            scale,
            ScalingType.RowWise,
            self.weight_scale,
            ScalingType.RowWise,
            output_dtype=torch.bfloat16,  # the only one that the row-wise kernel of Hopper has
            use_fast_accum=True,
        ).to(values.dtype)
        if self.bias is not None:
            product += self.bias
        return product.view(*values.shape[:-1], self.out_features)


def to_fp8(blocks: nn.ModuleList, *, device: torch.device) -> int:
    """Replace every linear layer inside *blocks*, one at a time on *device*, and return how many.

    Weights are left where they lay.
    """
    replaced = 0
    for parent, name, linear in _linears(blocks):
        home = linear.weight.device
        setattr(parent, name, Fp8Linear(linear.to(device)).to(home))
        replaced += 1
    return replaced


def require_fp8(device: torch.device) -> None:
    """Raise `ModelInvalid` unless *device* multiplies 8-bit floats."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < CAPABILITY:
        raise ModelInvalid(
            'gemm = "fp8" needs a GPU of compute capability 8.9 or more, which'
            f' {torch.cuda.get_device_name(device)} is not; set gemm = "native"'
        )
    try:
        Fp8Linear(nn.Linear(_UNIT, _UNIT, device=device))(torch.ones(_UNIT, _UNIT, device=device))
    except (RuntimeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ModelInvalid(
            f'gemm = "fp8" does not run on {device}: {reason}; set gemm = "native"'
        ) from error


def _linears(blocks: nn.ModuleList) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    for parent in list(blocks.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear) and not any(s % _UNIT for s in child.weight.shape):
                yield parent, name, child


def _quantize(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return `(rows / scale, scale)`: FP8 and, for each row, a power of two in float32."""
    largest = torch.linalg.vector_norm(rows, ord=torch.inf, dim=-1, keepdim=True).float()
    exponent = torch.ceil(torch.log2((largest / _LARGEST).clamp(min=_SMALLEST_SCALE)))
    return (rows * torch.exp2(-exponent).to(rows.dtype)).to(FP8), torch.exp2(exponent)
