"""Where the parts of a pipeline lie, and how they come to the device when they are needed.

What each layout takes is planned in `domain.layout`; here it is done. Weights never change while a
model serves (a LoRA adds to a layer's output, see `lora`), so what leaves the device is not copied
back: its bytes still lie in host memory, and leaving costs nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vidmill.domain.errors import EngineOutOfMemory, ModelInvalid
from vidmill.domain.layout import next_smaller, stays_as_read
from vidmill.domain.profile import Layout, ModelProfile
from vidmill.engines.anatomy import plan_of
from vidmill.engines.pinning import pin
from vidmill.engines.reading import Homes
from vidmill.telemetry import get_logger

log = get_logger(__name__)

AUTO = "auto"
"""Plan the layout, do not take a given one."""

_PREVIEWING = frozenset({Layout.RESIDENT, Layout.PARKED})
"""Layouts with room for the VAE's work beside both experts, so a picture costs a decode only."""

_BLOCKS_PER_GROUP = 1
"""Of an offloaded expert. A block of A14B at 720p computes for 0.2 s and is fetched in 0.03 s."""

STORED = torch.float8_e4m3fn


def free_bytes_of(device: torch.device) -> int:
    """Return the memory of *device* that nobody has, in bytes."""
    return torch.cuda.mem_get_info(device)[0]


def choose_layout(
    profile: ModelProfile,
    source: str,
    asked: str,
    *,
    device: torch.device,
    gpus: int = 1,
    measure: Callable[[torch.device], int] = free_bytes_of,
) -> Layout:
    """Return the layout to serve *profile* with: the one *asked* for, or with `auto` one that fits.

    What fits is planned from the memory that is free now, for clips as long as the model is warmed
    with, at the largest size, that so many *gpus* share. A CPU takes the profile's first.

    Raises:
        ModelInvalid: The profile does not have the one asked for.
        EngineOutOfMemory: None fits.
    """
    allowed = ", ".join(profile.layouts)
    if asked != AUTO:
        if asked not in profile.layouts:
            raise ModelInvalid(
                f"the profile {profile.name} has no layout {asked!r}; set VIDMILL_LAYOUT to auto"
                f" or one of: {allowed}"
            )
        return Layout(asked)
    if device.type != "cuda" or len(profile.layouts) == 1:
        return profile.layouts[0]
    free_bytes = measure(device)
    made = plan_of(profile, source, device_bytes=free_bytes, gpus=gpus)
    peaks = {need.layout.value: need.peak_bytes for need in made.needs}
    log.info(
        "layouts_planned",
        free_bytes=free_bytes,
        usable_bytes=made.usable_bytes,
        gpus=gpus,
        **peaks,
    )
    if made.chosen is None:
        raise EngineOutOfMemory(
            f"no layout of {profile.name} ({allowed}) fits the {free_bytes / 1e9:.1f} GB"
            f" that are free on {device}: the smallest needs {min(peaks.values()) / 1e9:.1f} GB and"
            " a margin; free the device, or see `vidmill models plan`"
        )
    return made.chosen.layout


def smaller_layout(profile: ModelProfile, layout: Layout) -> str:
    """Return what to do where *layout* ran out of memory."""
    smaller = next_smaller(layout, profile.layouts)
    if smaller is None:
        return "no smaller layout is left: take a larger GPU, or offer shorter or smaller clips"
    return f"set VIDMILL_LAYOUT={smaller}, the next smaller layout"


def first_homes(profile: ModelProfile, layout: Layout, *, device: torch.device) -> Homes:
    """Return where to read each part to: to the device, if it will stay there as it is."""
    host = torch.device("cpu")
    experts = device if stays_as_read(layout, is_fp8=profile.gemm == "fp8") else host
    return {
        "transformer": experts,
        "transformer_2": experts,
        "text_encoder": device if layout is Layout.RESIDENT else host,
        "vae": device,
    }


class Placement:
    """The parts of one pipeline, placed.

    Args:
        pipe: A `WanPipeline` whose parts have weights, on any device.
        device: Where it computes.
    """

    def __init__(self, pipe: Any, layout: Layout, *, device: torch.device) -> None:
        self.layout = layout
        self._pipe = pipe
        _compute_on(pipe, device)
        pipe.vae.to(device)
        self._text, self._high = _PLACERS[layout](pipe, device)

    @property
    def has_room_for_previews(self) -> bool:
        return self.layout in _PREVIEWING

    @contextmanager
    def encoding(self) -> Iterator[None]:
        """Have the text encoder on the device within the block."""
        if self._text is None:
            yield
            return
        self._text.come()
        try:
            yield
        finally:
            self._text.leave()

    def before_denoising(self) -> None:
        """Have on the device what draws."""
        if self._high is not None:
            self._high.come()

    def before_decoding(self) -> None:
        """Make room for the VAE's work. What steps aside comes back for the next clip."""
        if self._high is not None:
            self._high.leave()

    def settle_down(self) -> None:
        """Undo what a clip that ended early left half done."""
        self.before_decoding()  # or the next text would be encoded beside an idle expert
        if self.layout is Layout.OFFLOAD:
            for group in _groups(self._pipe):
                group.offload_()

    def stored_bytes(self) -> Mapping[str, int]:
        """Return the bytes of each part's weights, as they are stored."""
        names = ("transformer", "transformer_2", "text_encoder", "vae")
        return {name: _size_bytes(getattr(self._pipe, name)) for name in names}


class Visitor:
    """A module that lives in host memory, pinned for a GPU, and visits the device."""

    def __init__(self, module: nn.Module, *, device: torch.device) -> None:
        module.to("cpu")
        if device.type == "cuda":
            pin(module)
        self._device = device
        self.is_here = False
        self._home: Sequence[tuple[Tensor, Tensor]] = [
            (tensor, tensor.data) for tensor in (*module.parameters(), *module.buffers())
        ]

    def come(self) -> None:
        """Bring it to the device, if it is not there."""
        if self.is_here:
            return
        self.is_here = True
        try:
            for tensor, home in self._home:
                tensor.data = home.to(self._device, non_blocking=True)
        except BaseException:
            self._settle_home()  # no memory: half a module is no use there
            raise

    def leave(self) -> None:
        """Give the device's memory free, if it is there."""
        if self.is_here:
            self._settle_home()

    def _settle_home(self) -> None:
        for tensor, home in self._home:
            tensor.data = home
        self.is_here = False


Visitors = tuple[Visitor | None, Visitor | None]
"""Text encoder and high-noise expert, where they come and go."""


def _place_resident(pipe: Any, device: torch.device) -> Visitors:
    for part in (pipe.text_encoder, pipe.transformer, pipe.transformer_2):
        part.to(device)
    return None, None


def _place_parked(pipe: Any, device: torch.device) -> Visitors:
    for expert in (pipe.transformer, pipe.transformer_2):
        expert.to(device)
    return Visitor(pipe.text_encoder, device=device), None


def _place_fp8(pipe: Any, device: torch.device) -> Visitors:
    for expert in (pipe.transformer, pipe.transformer_2):
        store_in_fp8(expert.blocks, device=device)
    pipe.transformer_2.to(device)
    text, high = (Visitor(part, device=device) for part in (pipe.text_encoder, pipe.transformer))
    return text, high


def _place_offload(pipe: Any, device: torch.device) -> Visitors:
    for expert in (pipe.transformer, pipe.transformer_2):
        if device.type == "cuda":
            pin(expert)  # diffusers leaves alone what is pinned
        expert.enable_group_offload(
            onload_device=device,
            offload_device=torch.device("cpu"),
            offload_type="block_level",
            num_blocks_per_group=_BLOCKS_PER_GROUP,
            use_stream=device.type == "cuda",
        )
    return Visitor(pipe.text_encoder, device=device), None


_PLACERS: Mapping[Layout, Callable[[Any, torch.device], Visitors]] = MappingProxyType(
    {
        Layout.RESIDENT: _place_resident,
        Layout.PARKED: _place_parked,
        Layout.FP8: _place_fp8,
        Layout.OFFLOAD: _place_offload,
    }
)


class StoredInFp8(nn.Linear):
    """A linear layer whose weight is stored in 8-bit floats and computes in the input's type.

    Scales are powers of two, one per output row. The relative error of a layer's output is 2.6 %
    (measured, normal weights of deviation 0.02) against the 3.3 % of diffusers' layerwise casting,
    which has no scales and rounds small weights to steps of 0.002; and unlike its hooks, this is
    arithmetic that compiles with the block around it.
    """

    weight_scale: Tensor

    def forward(self, values: Tensor) -> Tensor:
        weight = self.weight.to(values.dtype) * self.weight_scale
        return functional.linear(values, weight, self.bias)


@torch.no_grad()
def store_in_fp8(blocks: nn.ModuleList, *, device: torch.device) -> None:
    """Turn the linear layers in *blocks* into `StoredInFp8`, one at a time on *device*.

    Weights stay where they lay.
    """
    for layer in blocks.modules():
        if type(layer) is nn.Linear:
            home = layer.weight.device
            rows = layer.weight.to(device)
            largest = torch.linalg.vector_norm(rows, ord=torch.inf, dim=1, keepdim=True).float()
            exponent = torch.ceil(torch.log2(largest.clamp(min=1e-30) / torch.finfo(STORED).max))
            scale = torch.exp2(exponent).to(rows.dtype)
            stored = (rows / scale).to(STORED).to(home)
            layer.weight = nn.Parameter(stored, requires_grad=False)
            layer.register_buffer("weight_scale", scale.to(home))
            layer.__class__ = StoredInFp8


def _compute_on(pipe: Any, device: torch.device) -> None:
    """Say where *pipe* computes; diffusers takes the device of its first part, maybe parked."""
    kind = type(pipe)
    pipe.__class__ = type(kind.__name__, (kind,), {"_execution_device": device})


def _groups(pipe: Any) -> Iterator[Any]:
    """Yield diffusers' groups of offloaded modules."""
    for expert in (pipe.transformer, pipe.transformer_2):
        for module in expert.modules():
            registry = getattr(module, "_diffusers_hook", None)
            hook = registry.get_hook("group_offloading") if registry else None
            if hook is not None:
                yield hook.group


def _size_bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))
