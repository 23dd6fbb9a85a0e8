import pytest
import torch
from torch import nn

from vidmill.engines.fp8 import FP8, Fp8Linear, require_fp8, to_fp8

CPU = torch.device("cpu")
ERROR = 0.05
"""Relative, of one layer: 3.7 % measured."""


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def error_of(linear: nn.Linear, values: torch.Tensor) -> float:
    with torch.no_grad():
        wanted = linear.float()(values.float())
        found = Fp8Linear(linear)(values)
    assert found.dtype == values.dtype
    return float((found.float() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", [32, 5120])
def test_a_layer_differs_from_float32_by_its_two_roundings(dtype: torch.dtype, width: int) -> None:
    linear = nn.Linear(width, 64).to(dtype)
    assert error_of(linear, torch.randn(2, 37, width, dtype=dtype)) < ERROR


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4])
def test_the_size_of_a_token_does_not_change_the_error(size: float) -> None:
    linear = nn.Linear(64, 64, bias=False)
    assert error_of(linear, torch.randn(37, 64) * size) < ERROR


def test_tokens_and_rows_of_weights_have_scales_of_their_own() -> None:
    linear = nn.Linear(64, 32, bias=False)
    with torch.no_grad():
        linear.weight[0] *= 1e4
        values = torch.randn(4, 64)
        values[0] *= 1e4
        wanted, found = linear(values), Fp8Linear(linear)(values)
    small = (slice(1, None), slice(1, None))  # beside what is 100 million times as large
    assert (found - wanted)[small].norm() < ERROR * wanted[small].norm()


def test_a_token_of_zeros_and_one_of_the_largest_numbers_stay_numbers() -> None:
    layer = Fp8Linear(nn.Linear(16, 16, bias=False))
    values = torch.stack([torch.zeros(16), torch.full((16,), 3e38)])
    found = layer(values)
    assert found[0].eq(0).all()
    assert not found[1].isnan().any()


def test_every_linear_layer_of_the_blocks_is_replaced_and_nothing_else() -> None:
    block = nn.Sequential(nn.Linear(32, 64), nn.LayerNorm(64), nn.Linear(64, 32))
    assert to_fp8(nn.ModuleList([block]), device=CPU) == 2
    assert [type(layer) for layer in block] == [Fp8Linear, nn.LayerNorm, Fp8Linear]
    assert block[0].weight.dtype is FP8


def test_a_side_that_no_kernel_takes_is_left_as_it_was() -> None:
    blocks = nn.ModuleList([nn.Linear(30, 64), nn.Linear(64, 30)])
    assert to_fp8(blocks, device=CPU) == 0


def test_weights_take_half_of_the_bytes_of_bf16() -> None:
    linear = nn.Linear(512, 512, bias=False).bfloat16()
    layer = Fp8Linear(linear)
    held = sum(buffer.nbytes for buffer in layer.buffers())
    assert held <= linear.weight.nbytes / 2 + 4 * 512


def test_this_cpu_multiplies_8_bit_floats() -> None:
    require_fp8(CPU)
