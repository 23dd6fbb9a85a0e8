"""The engine of the house: diffusers' `WanPipeline` in this process.

The tiny folder and A14B run the same lines; what differs is in the profile. Nothing is inherited
from diffusers' defaults. Two of its ways matter to a caller: the first guidance scale alone
switches guidance on, and the high-noise expert comes first (Wan's own config lists low, high).
"""

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidmill.domain.clip import ClipSpec, Resolution
from vidmill.domain.errors import EngineFailed, SpecUnsupported
from vidmill.domain.job import Phase
from vidmill.domain.ports import Allocate, Frames, Watch
from vidmill.domain.profile import ModelProfile
from vidmill.engines.drain import Drain
from vidmill.engines.embeddings import EmbeddingCache
from vidmill.engines.fingerprint import fingerprint
from vidmill.engines.folder import require_sound
from vidmill.engines.hub import fetch_folder
from vidmill.engines.pipeline import choose_device, device_errors, load_pipeline
from vidmill.engines.pulse import Pulse
from vidmill.telemetry import get_logger

log = get_logger(__name__)

_WARM_FLOW_SHIFT = 1.0
"""Two steps at this shift lie at noise levels 1.0 and 0.5: one for each expert."""


class WanEngine:
    """See `domain.ports.Engine`.

    Units of progress are calls of transformer blocks while denoising, frames while decoding.

    Args:
        profile: How to run the model.
        source: A folder, or a hub id that `load` downloads (or finds in the hub's cache).
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        threads: CPU threads of torch; 0 = the profile's choice.
    """

    def __init__(
        self, profile: ModelProfile, source: str, *, device: str = "auto", threads: int = 0
    ) -> None:
        self._profile = profile
        self._source = source
        self._device_name = device
        self._threads = threads
        self._loaded: _Loaded | None = None

    def load(self) -> None:
        if self._loaded is not None:
            return
        folder = fetch_folder(self._source, self._profile.revision)
        require_sound(self._profile, folder)
        if threads := self._threads or self._profile.cpu_threads:
            torch.set_num_threads(threads)
        device = choose_device(self._device_name)
        pipe = load_pipeline(self._profile, folder, device=device)
        pulse = Pulse(is_async=device.type == "cuda")
        for expert in (pipe.transformer, pipe.transformer_2):
            pulse.listen_to_denoiser(expert.blocks)
        pulse.listen_to_decoder([pipe.vae.decoder.mid_block, *pipe.vae.decoder.up_blocks])
        encode = partial(_encode, pipe, max_tokens=self._profile.max_text_tokens)
        self._loaded = _Loaded(folder, pipe, pulse, EmbeddingCache(encode))
        log.info("model_loaded", profile=self._profile.name, device=str(device))

    def warm(self, on_shape: Callable[[int, int], None]) -> None:
        shapes = {size: resolution for resolution, size in self._profile.sizes.items()}
        for done, resolution in enumerate(shapes.values(), start=1):
            spec = self._warm_spec(resolution)
            self.generate(spec, allocate=_in_memory, watch=_Unwatched())
            on_shape(done, len(shapes))

    def identity(self) -> Mapping[str, str]:
        names = {"name": self._profile.name, "revision": self._profile.revision}
        return names | fingerprint(self._model.folder)

    def generate(self, spec: ClipSpec, *, allocate: Allocate, watch: Watch) -> Frames:
        """Render *spec*; see the port. Host memory holds the clip once, as `uint8`.

        Raises:
            SpecUnsupported: The profile cannot make such a clip.
        """
        model = self._model
        self._refuse_unsupported(spec)
        with device_errors(), torch.no_grad():
            try:
                watch.check()
                latents = self._denoise(spec, watch)
                return self._decode(latents, spec, allocate=allocate, watch=watch)
            finally:
                model.settle_down()

    def close(self) -> None:
        self._loaded = None
        gc.collect()
        torch.cuda.empty_cache()

    @property
    def _model(self) -> "_Loaded":
        if self._loaded is None:
            raise EngineFailed("the model is not loaded; call load() first")
        return self._loaded

    def _refuse_unsupported(self, spec: ClipSpec) -> None:
        profile = self._profile
        refusals = {
            f"profile {spec.profile!r}, loaded is {profile.name!r}": spec.profile != profile.name,
            f"size {spec.native}": spec.native not in profile.sizes.values(),
            f"{spec.num_frames} frames, not {profile.frame_stride}k+1": spec.num_frames < 1
            or spec.num_frames % profile.frame_stride != 1,
            f"{spec.steps} steps": spec.steps < 1,
            "guidance for the low-noise expert only": spec.guidance_scale <= 1
            and spec.guidance_scale_2 > 1,
        }
        reasons = [reason for reason, is_wrong in refusals.items() if is_wrong]
        if reasons:
            sizes = ", ".join(sorted({str(size) for size in profile.sizes.values()}))
            raise SpecUnsupported(
                f"{profile.name} cannot make {'; '.join(reasons)}. It makes {sizes} with"
                f" {profile.frame_stride}k+1 frames"
            )

    def _denoise(self, spec: ClipSpec, watch: Watch) -> torch.Tensor:
        model, pipe = self._model, self._model.pipe
        is_guided = spec.guidance_scale > 1
        watch.report(Phase.ENCODING_TEXT, 0, 1)
        positive = model.embeddings.get(spec.prompt)
        negative = model.embeddings.get(spec.negative_prompt) if is_guided else None
        watch.report(Phase.ENCODING_TEXT, 1, 1)
        # A fresh scheduler for each clip: no state of an earlier or cancelled one survives in it.
        pipe.scheduler = type(pipe.scheduler).from_config(
            pipe.scheduler.config, flow_shift=spec.flow_shift
        )
        passes = 2 if is_guided else 1
        model.pulse.start(
            watch,
            num_steps=spec.steps,
            blocks_per_step=passes * len(pipe.transformer.blocks),
        )
        latents: torch.Tensor = pipe(
            prompt_embeds=positive,
            negative_prompt_embeds=negative,
            height=spec.native.height_px,
            width=spec.native.width_px,
            num_frames=spec.num_frames,
            num_inference_steps=spec.steps,
            guidance_scale=spec.guidance_scale,
            guidance_scale_2=spec.guidance_scale_2,
            # Noise from the CPU's generator is the same on every device.
            generator=torch.Generator("cpu").manual_seed(spec.seed),
            callback_on_step_end=model.after_step,
            callback_on_step_end_tensor_inputs=[],
            max_sequence_length=self._profile.max_text_tokens,
            output_type="latent",
        ).frames
        return latents

    def _decode(
        self, latents: torch.Tensor, spec: ClipSpec, *, allocate: Allocate, watch: Watch
    ) -> Frames:
        vae = self._model.pipe.vae
        frames = allocate((spec.num_frames, spec.native.height_px, spec.native.width_px, 3))
        watch.report(Phase.DECODING, 0, spec.num_frames)

        def on_chunk(done: int, total: int) -> None:
            watch.check()
            watch.report(Phase.DECODING, done, total)

        drain = Drain(frames, vae.config.patch_size, on_chunk=on_chunk)
        hook = vae.decoder.register_forward_hook(drain)
        try:
            vae.decode(_unscale(latents, vae), return_dict=False)
        finally:
            hook.remove()
        drain.finish()
        return frames

    def _warm_spec(self, resolution: Resolution) -> ClipSpec:
        profile = self._profile
        size = profile.sizes[resolution]
        return ClipSpec(
            prompt="",
            negative_prompt=profile.default_negative_prompt,
            profile=profile.name,
            resolution=resolution,
            size=size,
            native=size,
            duration_s=profile.warm_duration_s,
            fps=profile.native_fps,
            native_fps=profile.native_fps,
            num_frames=profile.num_frames(profile.warm_duration_s),
            steps=2,
            guidance_scale=profile.guidance_scale,
            guidance_scale_2=profile.guidance_scale_2,
            flow_shift=_WARM_FLOW_SHIFT,
            seed=0,
        )


@dataclass(frozen=True)
class _Loaded:
    folder: Path
    pipe: Any
    pulse: Pulse
    embeddings: EmbeddingCache

    def after_step(self, _pipe: Any, step: int, _t: Any, _tensors: Any) -> dict[str, Any]:
        """Say that *step* (from 0) is done; diffusers' callback."""
        self.pulse.end_step(step + 1)
        return {}

    def settle_down(self) -> None:
        """Leave nothing of a clip behind: the next one starts the same after any ending."""
        self.pulse.stop()
        self.pipe.vae.clear_cache()
        self.pipe.maybe_free_model_hooks()


def _encode(pipe: Any, text: str, *, max_tokens: int) -> torch.Tensor:
    embedding: torch.Tensor = pipe.encode_prompt(
        text, do_classifier_free_guidance=False, max_sequence_length=max_tokens
    )[0]
    return embedding


def _unscale(latents: torch.Tensor, vae: Any) -> torch.Tensor:
    """Undo the normalisation the experts were trained in."""
    shape = (1, vae.config.z_dim, 1, 1, 1)
    latents = latents.to(vae.dtype)
    mean = torch.tensor(vae.config.latents_mean).view(shape).to(latents)
    std = torch.tensor(vae.config.latents_std).view(shape).to(latents)
    return latents * std + mean


def _in_memory(shape: tuple[int, int, int, int]) -> Frames:
    return np.empty(shape, np.uint8)


class _Unwatched:
    def report(self, phase: Phase, done: int, total: int) -> None: ...

    def check(self) -> None: ...
