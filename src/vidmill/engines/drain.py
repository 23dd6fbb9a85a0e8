"""From VAE output to frames, chunk by chunk, so that no second copy of the clip ever exists."""

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vidmill.domain.errors import BadOutput
from vidmill.domain.ports import Frames

Carry = Callable[[Tensor], Callable[[], Tensor]]
"""Begins to bring a tensor to the host; what it returns waits for that and returns it."""

_ON_THE_WAY = 1
"""Chunks that a device may be ahead of the frames: the one that is copied while it draws another.
Each holds 11 MB of pinned memory at 720p."""


def carrier(device: torch.device) -> Carry | None:
    """Return how tensors of *device* come to the host while it computes; None if they are there."""
    return _CudaCarrier(device) if device.type == "cuda" else None


class Drain:
    """A forward hook for the VAE's decoder: keeps each chunk as `uint8` and hands an empty one on.

    `AutoencoderKLWan.decode` calls its decoder once per latent frame and concatenates what comes
    out, a clip of floats that grows by copying. What this hook returns in place of the chunk has no
    frames, so that costs nothing and the device holds one chunk (up to 4 frames) at a time.

    Args:
        frames: `(T, H, W, 3)`, filled in order.
        patch_size: The VAE's pixel-shuffle factor, or None.
        on_chunk: Told `(frames so far, T)` after every chunk.
        carry: See `carrier`. With it a chunk lands while the next one is drawn.
    """

    def __init__(
        self,
        frames: Frames,
        patch_size: int | None,
        *,
        on_chunk: Callable[[int, int], None],
        carry: Carry | None = None,
    ) -> None:
        from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify

        self._unpatchify = unpatchify
        self._frames = torch.from_numpy(frames)
        self._patch_size = patch_size
        self._on_chunk = on_chunk
        self._carry = carry
        self._under_way: deque[_Chunk] = deque()
        self._drawn = 0

    def __call__(self, _module: object, _inputs: object, output: Any) -> Tensor:
        chunk: Tensor = output
        if self._patch_size is not None:
            chunk = self._unpatchify(output, self._patch_size)
        self._under_way.append(self._send(chunk))
        while len(self._under_way) > (_ON_THE_WAY if self._carry else 0):
            self._land(self._under_way.popleft())
        return output[:, :, :0]  # type: ignore[no-any-return]

    def finish(self) -> None:
        """Let land what is still under way; raise `BadOutput` unless every frame was drawn."""
        while self._under_way:
            self._land(self._under_way.popleft())
        if self._drawn != len(self._frames):
            raise BadOutput(f"the VAE drew {self._drawn} frames, wanted {len(self._frames)}")

    def _send(self, chunk: Tensor) -> "_Chunk":
        is_finite = torch.isfinite(chunk).all()
        pixels = chunk[0].clamp(-1, 1).add_(1).mul_(127.5).round_().to(torch.uint8)
        pixels = pixels.permute(1, 2, 3, 0)
        start, end = self._drawn, self._drawn + len(pixels)
        if pixels.shape[1:] != self._frames.shape[1:] or end > len(self._frames):
            drawn, wanted = tuple(pixels.shape[:3]), tuple(self._frames.shape[:3])
            raise BadOutput(f"the VAE drew {drawn} after {start} frames of {wanted}")
        self._drawn = end
        carry = self._carry or _at_once
        return _Chunk(start, end, carry(pixels), carry(is_finite))

    def _land(self, chunk: "_Chunk") -> None:
        if not bool(chunk.is_finite()):
            raise BadOutput(
                f"frame {chunk.start} of the decoded clip holds NaN or infinity; try again"
            )
        self._frames[chunk.start : chunk.end].copy_(chunk.pixels())
        self._on_chunk(chunk.end, len(self._frames))


class _Chunk(NamedTuple):
    """Frames *start* to *end* (exclusive) on their way to the host."""

    start: int
    end: int
    pixels: Callable[[], Tensor]
    is_finite: Callable[[], Tensor]


def _at_once(values: Tensor) -> Callable[[], Tensor]:
    return lambda: values


class _CudaCarrier:
    """Copies to pinned memory on a stream of its own, so that the decoder's never waits for it."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def __call__(self, values: Tensor) -> Callable[[], Tensor]:
        values = values.contiguous()
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        self._stream.wait_stream(torch.cuda.current_stream(values.device))
        with torch.cuda.stream(self._stream):
            host.copy_(values, non_blocking=True)
            arrived: Any = self._stream.record_event()
        values.record_stream(self._stream)  # or its memory would be given away before it is copied

        def wait() -> Tensor:
            arrived.synchronize()
            return host

        return wait
