"""Which layout of a model fits a device, and why: arithmetic over sizes, nothing is measured here.

`resident`  every part on the device for good.
`parked`    the text encoder waits in host memory and is on the device only to encode.
`fp8`       the same, the experts' blocks are stored as 8-bit floats (and computed in `dtype`), and
            the high-noise expert waits in host memory too and is on the device only to denoise.
`offload`   everything waits in host memory; blocks come to the device one ahead of their turn.

Working sets were counted, not guessed: the code of diffusers 0.42 was run at true size on tensors
without memory and the bytes alive at once were added up (one expert's block and the VAE's decode;
1280x720 and 832x480, 81 and 161 frames). `bench/working_set.py` does it again; two numbers
reproduce all of it within 1 %.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from vidmill.domain.clip import Size
from vidmill.domain.job import Phase
from vidmill.domain.profile import Layout

GPU_COUNTS = (1, 2, 4, 8)
"""Devices that one clip may be shared among; A14B's 40 heads divide by each."""

_HIDDEN_COPIES = 11.2
"""A forward's peak, in copies of the hidden states: float32 norms, q, k, v, the FFN's middle."""

_EXCHANGE_COPIES = 4
"""More of those where devices exchange heads for tokens: q, k, v and what attention returns."""

_CACHED_COPIES = 3
"""More of those that a step cache keeps of a guidance pass: the first block's output, what it
changed, and what the other blocks changed. Only of the expert at work (`engines.speed`)."""

_DECODED_MAPS = 51
"""The decode's peak, in one-frame maps of the VAE's first width at full size: a chunk has four
frames, and every causal convolution keeps two of those before. It does not grow with the clip."""

_BLOCKS_IN_FLIGHT = 2
"""Of an offloaded expert: the one that computes and the one that is being fetched."""

MARGIN_SHARE = 0.05
"""Of the device, left to CUDA's context, kernels' workspaces and an allocator's holes."""

_EXPERTS = ("transformer", "transformer_2")


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """What decides the memory that a model takes.

    Attributes:
        params: Parameters of `transformer`, `transformer_2`, `text_encoder` and `vae`.
        item_bytes: Of a parameter of experts and text encoder, as they compute.
        vae_item_bytes: Of one of the VAE.
        is_fp8: The experts' blocks compute in 8-bit floats, so they are stored so in any layout.
        cached_passes: Guidance passes of a step that a step cache keeps something of; 0 = no cache.
        token_px: Side of the square of pixels that one token stands for.
        frames_per_latent: Frames that one latent frame stands for.
        vae_width: Channels of the VAE at full size.
    """

    params: Mapping[str, int]
    item_bytes: int
    vae_item_bytes: int
    is_fp8: bool
    cached_passes: int
    num_blocks: int
    width: int
    ffn_width: int
    token_px: int
    frames_per_latent: int
    vae_width: int

    @property
    def block_params(self) -> int:
        """Parameters of one block: two attentions of four matrices each, two matrices of FFN."""
        return 8 * self.width**2 + 2 * self.width * self.ffn_width

    def block_bytes(self, *, is_fp8: bool) -> int:
        """Bytes of one block's weights."""
        return self.block_params * (1 if is_fp8 or self.is_fp8 else self.item_bytes)

    def outside_bytes(self, expert: str) -> int:
        """Bytes of what *expert* has besides blocks; 8-bit floats are not for it."""
        blocks = min(self.params[expert], self.num_blocks * self.block_params)
        return (self.params[expert] - blocks) * self.item_bytes

    def expert_bytes(self, expert: str, *, is_fp8: bool = False) -> int:
        """Bytes of the weights of *expert*."""
        blocks = min(self.params[expert], self.num_blocks * self.block_params)
        item_bytes = 1 if is_fp8 or self.is_fp8 else self.item_bytes
        return blocks * item_bytes + self.outside_bytes(expert)

    @property
    def text_bytes(self) -> int:
        return self.params["text_encoder"] * self.item_bytes

    @property
    def vae_bytes(self) -> int:
        return self.params["vae"] * self.vae_item_bytes

    def tokens(self, size: Size, num_frames: int) -> int:
        """Tokens of a clip."""
        latents = (num_frames - 1) // self.frames_per_latent + 1
        return latents * (size.width_px // self.token_px) * (size.height_px // self.token_px)

    def denoising_bytes(self, size: Size, num_frames: int, *, gpus: int) -> int:
        """Working set of one forward of an expert and its step cache, per device."""
        copies = _HIDDEN_COPIES + (_EXCHANGE_COPIES if gpus > 1 else 0)
        copies += _CACHED_COPIES * self.cached_passes
        return int(self.tokens(size, num_frames) * self.width * self.item_bytes * copies / gpus)

    def decoding_bytes(self, size: Size) -> int:
        """Working set of the VAE; one device decodes, however many there are."""
        pixels = size.width_px * size.height_px
        return pixels * self.vae_width * self.vae_item_bytes * _DECODED_MAPS


@dataclass(frozen=True, kw_only=True)
class Need:
    """What one layout takes of a device.

    Attributes:
        resting: Bytes on the device between clips, by part.
        peaks: Bytes on the device at most, by phase.
        host_bytes: Bytes of weights that wait in host memory, of all devices' processes together.
        loading_bytes: The same while they load: experts that will be rounded are read as they are.
    """

    layout: Layout
    resting: Mapping[str, int]
    peaks: Mapping[Phase, int]
    host_bytes: int
    loading_bytes: int = 0

    @property
    def peak_bytes(self) -> int:
        return max(self.peaks.values())


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """The layouts of a model against one device.

    Attributes:
        size: Of the largest clip.
        usable_bytes: Of the device, less the margin.
        needs: One for each layout allowed, best first.
    """

    size: Size
    num_frames: int
    device_bytes: int
    usable_bytes: int
    gpus: int
    needs: tuple[Need, ...]

    @property
    def chosen(self) -> Need | None:
        """The first that fits."""
        fitting = (need for need in self.needs if need.peak_bytes <= self.usable_bytes)
        return next(fitting, None)

    @property
    def smallest_device_bytes(self) -> int:
        """Of the smallest device that one of the layouts fits."""
        return math.ceil(min(need.peak_bytes for need in self.needs) / (1 - MARGIN_SHARE))


def plan_memory(
    anatomy: Anatomy,
    layouts: Sequence[Layout],
    *,
    size: Size,
    num_frames: int,
    device_bytes: int,
    gpus: int = 1,
) -> MemoryPlan:
    """Return what each of *layouts* needs for such clips on each of *gpus* devices."""
    work = {
        Phase.ENCODING_TEXT: 0,  # 512 tokens: within the margin
        Phase.DENOISING: anatomy.denoising_bytes(size, num_frames, gpus=gpus),
        Phase.DECODING: anatomy.decoding_bytes(size),
    }
    return MemoryPlan(
        size=size,
        num_frames=num_frames,
        device_bytes=device_bytes,
        usable_bytes=int(device_bytes * (1 - MARGIN_SHARE)),
        gpus=gpus,
        needs=tuple(_need(layout, anatomy, work, gpus=gpus) for layout in layouts),
    )


def stays_as_read(layout: Layout, *, is_fp8: bool) -> bool:
    """Whether the experts stay on the device as they are read, two bytes a weight."""
    return layout in {Layout.RESIDENT, Layout.PARKED} and not is_fp8


def next_smaller(layout: Layout, allowed: Sequence[Layout]) -> Layout | None:
    """Return the layout to try where *layout* ran out of memory, if any is left."""
    smaller = [*Layout][[*Layout].index(layout) + 1 :]
    return next((other for other in smaller if other in allowed), None)


Work = Mapping[Phase, int]


def _need(layout: Layout, anatomy: Anatomy, work: Work, *, gpus: int) -> Need:
    need = _NEEDS[layout](anatomy, work)
    read = 0 if layout is Layout.RESIDENT else anatomy.text_bytes
    if not stays_as_read(layout, is_fp8=anatomy.is_fp8):
        read += sum(anatomy.params[name] for name in _EXPERTS) * anatomy.item_bytes
    return replace(need, host_bytes=gpus * need.host_bytes, loading_bytes=gpus * read)


def _resident(anatomy: Anatomy, work: Work) -> Need:
    experts = sum(anatomy.expert_bytes(name) for name in _EXPERTS)
    resting = {
        "experts": experts,
        "text_encoder": anatomy.text_bytes,
        "vae": anatomy.vae_bytes,
    }
    peaks = {phase: sum(resting.values()) + more for phase, more in work.items()}
    return Need(layout=Layout.RESIDENT, resting=resting, peaks=peaks, host_bytes=0)


def _parked(anatomy: Anatomy, work: Work) -> Need:
    experts = sum(anatomy.expert_bytes(name) for name in _EXPERTS)
    resting = {"experts": experts, "text_encoder": 0, "vae": anatomy.vae_bytes}
    coming = {Phase.ENCODING_TEXT: anatomy.text_bytes}
    peaks = _peaks(resting, work, coming)
    host = anatomy.text_bytes
    return Need(layout=Layout.PARKED, resting=resting, peaks=peaks, host_bytes=host)


def _fp8(anatomy: Anatomy, work: Work) -> Need:
    high, low = (anatomy.expert_bytes(name, is_fp8=True) for name in _EXPERTS)
    resting = {"experts": low, "text_encoder": 0, "vae": anatomy.vae_bytes}
    coming = {Phase.ENCODING_TEXT: anatomy.text_bytes, Phase.DENOISING: high}
    peaks = _peaks(resting, work, coming)
    host = anatomy.text_bytes + high
    return Need(layout=Layout.FP8, resting=resting, peaks=peaks, host_bytes=host)


def _offload(anatomy: Anatomy, work: Work) -> Need:
    resting = {"experts": 0, "text_encoder": 0, "vae": anatomy.vae_bytes}
    blocks = _BLOCKS_IN_FLIGHT * anatomy.block_bytes(is_fp8=False)
    outside = max(map(anatomy.outside_bytes, _EXPERTS))
    coming = {Phase.ENCODING_TEXT: anatomy.text_bytes, Phase.DENOISING: blocks + outside}
    peaks = _peaks(resting, work, coming)
    host = anatomy.text_bytes + sum(anatomy.expert_bytes(name) for name in _EXPERTS)
    return Need(layout=Layout.OFFLOAD, resting=resting, peaks=peaks, host_bytes=host)


def _peaks(resting: Mapping[str, int], work: Work, coming: Work) -> dict[Phase, int]:
    """Return the peaks where *coming* bytes come to the device for a phase."""
    at_rest = sum(resting.values())
    return {phase: at_rest + more + coming.get(phase, 0) for phase, more in work.items()}


_NEEDS: Mapping[Layout, Callable[[Anatomy, Work], Need]] = MappingProxyType(
    {
        Layout.RESIDENT: _resident,
        Layout.PARKED: _parked,
        Layout.FP8: _fp8,
        Layout.OFFLOAD: _offload,
    }
)
