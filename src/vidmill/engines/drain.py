"""From VAE output to frames, chunk by chunk, so that no second copy of the clip ever exists."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vidmill.domain.errors import BadOutput
from vidmill.domain.ports import Frames


class Drain:
    """A forward hook for the VAE's decoder: keeps each chunk as `uint8` and hands an empty one on.

    `AutoencoderKLWan.decode` calls its decoder once per latent frame and concatenates what comes
    out, a clip of floats that grows by copying. What this hook returns in place of the chunk has no
    frames, so that costs nothing and the device holds one chunk (up to 4 frames) at a time.

    Args:
        frames: `(T, H, W, 3)`, filled in order.
        patch_size: The VAE's pixel-shuffle factor, or None.
        on_chunk: Told `(frames so far, T)` after every chunk.
    """

    def __init__(
        self, frames: Frames, patch_size: int | None, *, on_chunk: Callable[[int, int], None]
    ) -> None:
        from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify

        self._unpatchify = unpatchify
        self._frames = torch.from_numpy(frames)
        self._patch_size = patch_size
        self._on_chunk = on_chunk
        self._filled = 0

    def __call__(self, _module: object, _inputs: object, output: Any) -> Tensor:
        chunk: Tensor = output
        if self._patch_size is not None:
            chunk = self._unpatchify(output, self._patch_size)
        if not bool(torch.isfinite(chunk).all()):
            raise BadOutput(
                f"frame {self._filled} of the decoded clip holds NaN or infinity; try again"
            )
        pixels = chunk[0].clamp(-1, 1).add_(1).mul_(127.5).round_().to(torch.uint8)
        end = self._filled + pixels.shape[1]
        if pixels.shape[2:] != self._frames.shape[1:3] or end > len(self._frames):
            drawn, wanted = tuple(pixels.shape[1:]), tuple(self._frames.shape[:3])
            raise BadOutput(f"the VAE drew {drawn} after {self._filled} frames of {wanted}")
        self._frames[self._filled : end].copy_(pixels.permute(1, 2, 3, 0))
        self._filled = end
        self._on_chunk(end, len(self._frames))
        return output[:, :, :0]  # type: ignore[no-any-return]

    def finish(self) -> None:
        """Raise `BadOutput` unless every frame was drawn."""
        if self._filled != len(self._frames):
            raise BadOutput(f"the VAE drew {self._filled} frames, wanted {len(self._frames)}")
