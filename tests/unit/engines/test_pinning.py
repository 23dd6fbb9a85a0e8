import torch
from torch import Tensor, nn

from vidmill.engines.pinning import pin


class Slabs:
    """Stands for torch's pinned allocations, which no CPU has; notes their sizes."""

    def __init__(self, device: str = "cpu") -> None:
        self.sizes: list[int] = []
        self._device = device

    def __call__(self, size_bytes: int) -> Tensor:
        self.sizes.append(size_bytes)
        return torch.empty(size_bytes, dtype=torch.uint8, device=self._device)


def test_a_pinned_module_is_the_same_to_the_bit() -> None:
    module = nn.Sequential(nn.Linear(7, 5), nn.BatchNorm1d(5), nn.Linear(5, 3).bfloat16())
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    slabs = Slabs()
    pin(module, allocate=slabs)
    after = module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [tensor.dtype for tensor in before.values()] == [t.dtype for t in after.values()]
    assert slabs.sizes == [8192]  # one: 11 tensors, each at a multiple of 512


def test_matrices_just_above_a_power_of_two_are_not_rounded_up_one_by_one() -> None:
    """Of A14B's block; on the meta device, for sizes alone."""
    with torch.device("meta"):
        layers = [nn.Linear(5120, 13_824, bias=False, dtype=torch.bfloat16) for _ in range(40)]
        module = nn.ModuleList(layers)
    slabs = Slabs("meta")
    pin(module, allocate=slabs)
    held = sum(parameter.nbytes for parameter in module.parameters())
    assert sum(slabs.sizes) < 1.15 * held
    assert all(size.bit_count() == 1 for size in slabs.sizes)  # what torch does not round


def test_what_is_larger_than_a_slab_has_one_of_its_own() -> None:
    module = nn.Module()
    for name, size in (("small", 10), ("large", 2**30 + 1), ("last", 10)):
        module.register_buffer(name, torch.empty(size, dtype=torch.uint8, device="meta"))
    slabs = Slabs("meta")
    pin(module, allocate=slabs)
    assert slabs.sizes == [2**30, 2**30 + 1, 512]
