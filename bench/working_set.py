"""Count the memory that a forward of an expert and a decode take at true size, without that memory.

    python bench/working_set.py

Runs diffusers' own code on fake tensors (shapes without bytes) and adds up the storages alive at
once, weights left out. `domain.layout` has its two constants from here. What this cannot see:
CUDA's context, kernels' workspaces, the allocator's holes, and what compilation fuses away.
"""

import json
import weakref
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vidmill.domain.clip import Size
from vidmill.engines.anatomy import anatomy_of
from vidmill.profiles import load_profile

CLIPS = ((Size(1280, 720), 81), (Size(832, 480), 81), (Size(1280, 720), 161))
LAYERS = 2  # peaks do not depend on how many there are


class Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes of the storages that operations make, and takes off those that die."""

    def __init__(self, known: torch.nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now_bytes: int = 0
        self.peak_bytes: int = 0
        self._seen: Any = weakref.WeakSet(tensor.untyped_storage() for tensor in known.parameters())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if not isinstance(tensor, torch.Tensor) or tensor.untyped_storage() in self._seen:
                continue
            storage = tensor.untyped_storage()
            self._seen.add(storage)
            self.now_bytes += storage.nbytes()
            self.peak_bytes = max(self.peak_bytes, self.now_bytes)
            weakref.finalize(storage, self._drop, storage.nbytes())
        return made

    def _drop(self, size_bytes: int) -> None:
        self.now_bytes -= size_bytes


def expert_peak_bytes(size: Size, num_frames: int) -> int:
    expert = WanTransformer3DModel(num_layers=LAYERS)  # the rest of the defaults is A14B
    kept = set(expert._keep_in_fp32_modules)  # noqa: SLF001
    for name, parameter in expert.named_parameters():
        if not kept & set(name.split(".")):
            parameter.data = parameter.data.to(torch.bfloat16)
    frames = (num_frames - 1) // 4 + 1
    latents = torch.randn(
        1, 16, frames, size.height_px // 8, size.width_px // 8, dtype=torch.bfloat16
    )
    text = torch.randn(1, 512, 4096, dtype=torch.bfloat16)
    alive = Alive(expert)
    with alive:
        expert(latents, torch.tensor([999]), text, return_dict=False)
    return alive.peak_bytes


def decode_peak_bytes(size: Size) -> int:
    vae = AutoencoderKLWan()
    vae.decoder.register_forward_hook(lambda _module, _inputs, chunk: chunk[:, :, :0])  # as Drain
    latents = torch.randn(1, 16, 3, size.height_px // 8, size.width_px // 8)
    alive = Alive(vae)
    with alive:
        vae.decode(latents, return_dict=False)
    return alive.peak_bytes


def main() -> None:
    anatomy = anatomy_of(load_profile("a14b-quality"), None)
    with torch.no_grad(), FakeTensorMode():
        for size, num_frames in CLIPS:
            counted, decoded = expert_peak_bytes(size, num_frames), decode_peak_bytes(size)
            hidden = anatomy.tokens(size, num_frames) * anatomy.width * anatomy.item_bytes
            first_map = size.width_px * size.height_px * anatomy.vae_width * anatomy.vae_item_bytes
            report = {
                "clip": f"{size} x {num_frames}",
                "expert_gb": round(counted / 1e9, 2),
                "planned_expert_gb": round(
                    anatomy.denoising_bytes(size, num_frames, gpus=1) / 1e9, 2
                ),
                "hidden_copies": round(counted / hidden, 2),
                "decode_gb": round(decoded / 1e9, 2),
                "planned_decode_gb": round(anatomy.decoding_bytes(size) / 1e9, 2),
                "decoded_maps": round(decoded / first_map, 2),
            }
            print(json.dumps(report))


if __name__ == "__main__":
    main()
