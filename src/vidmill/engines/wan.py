"""The engine of the house: diffusers' `WanPipeline` in this process.

The tiny folder and A14B run the same lines; what differs is in the profile. Nothing is inherited
from diffusers' defaults. Two of its ways matter to a caller: the first guidance scale alone
switches guidance on, and the high-noise expert comes first (Wan's own config lists low, high).
"""

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from vidmill.domain.clip import Aspect, ClipSpec, Resolution, Size
from vidmill.domain.errors import BadOutput, EngineFailed, LoraInvalid
from vidmill.domain.job import Phase
from vidmill.domain.ports import Allocate, Frames, LoraFiles, Show, Watch
from vidmill.domain.preview_frames import preview_steps
from vidmill.domain.profile import ModelProfile
from vidmill.engines.drain import Drain, carrier
from vidmill.engines.embeddings import EmbeddingCache
from vidmill.engines.lora import Adapters
from vidmill.engines.pinning import give_back
from vidmill.engines.pipeline import (
    OpenParts,
    Parts,
    choose_device,
    device_errors,
    load_pipeline,
    open_folder,
)
from vidmill.engines.placement import AUTO, Placement, choose_layout, smaller_layout
from vidmill.engines.pulse import Pulse, marker
from vidmill.engines.refusals import refuse_unsupported
from vidmill.profiles import revision_of
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
        layout: `auto`, or one of the profile's; see `domain.layout`.
        open_parts: Brings the parts into memory.
    """

    _ranks = 1
    """Devices that share a clip."""

    def __init__(
        self,
        profile: ModelProfile,
        source: str,
        *,
        device: str = "auto",
        threads: int = 0,
        layout: str = AUTO,
        open_parts: OpenParts = open_folder,
    ) -> None:
        self._profile = profile
        self._source = source
        self._revision = revision_of(profile, source)
        self._device_name = device
        self._threads = threads
        self._layout = layout
        self._open_parts = open_parts
        self._loaded: _Loaded | None = None

    def load(self) -> None:
        if self._loaded is not None:
            return
        if threads := self._threads or self._profile.cpu_threads:
            torch.set_num_threads(threads)
        device = choose_device(self._device_name)
        if device.index is not None:
            torch.cuda.set_device(device)  # the pulse marks the current device's queue
        layout = choose_layout(
            self._profile, self._source, self._layout, device=device, gpus=self._ranks
        )
        parts, placement = load_pipeline(
            self._profile, self._source, layout, device=device, open_parts=self._open_parts
        )
        pipe = parts.pipe
        pulse = Pulse(mark=marker(device))
        for expert in (pipe.transformer, pipe.transformer_2):
            pulse.listen_to_denoiser(expert.blocks)
        pulse.listen_to_decoder([pipe.vae.decoder.mid_block, *pipe.vae.decoder.up_blocks])
        encode = partial(_encode, pipe, placement, max_tokens=self._profile.max_text_tokens)
        adapters = Adapters(
            (pipe.transformer, pipe.transformer_2),
            device=device,
            dtype=getattr(torch, self._profile.dtype),
        )
        self._loaded = _Loaded(parts, placement, pulse, EmbeddingCache(encode), adapters)
        log.info(
            "model_loaded",
            profile=self._profile.name,
            device=str(device),
            layout=layout.value,
            **{f"{part}_bytes": size for part, size in placement.stored_bytes().items()},
        )

    def warm(self, on_shape: Callable[[int, int], None]) -> None:
        shapes = self._warm_shapes()
        for done, (resolution, size) in enumerate(shapes, start=1):
            spec = self._warm_spec(resolution, size)
            self.generate(spec, allocate=_in_memory, watch=_Unwatched())
            on_shape(done, len(shapes))

    def identity(self) -> Mapping[str, str]:
        names = {"name": self._profile.name, "revision": self._revision}
        return {**names, **self._model.parts.fingerprint()}

    def generate(
        self,
        spec: ClipSpec,
        *,
        allocate: Allocate,
        watch: Watch,
        show: Show | None = None,
        lora: LoraFiles | None = None,
    ) -> Frames:
        """Render *spec*; see the port. Host memory holds the clip once, as `uint8`.

        Raises:
            SpecUnsupported: The profile cannot make such a clip.
        """
        model = self._model
        refuse_unsupported(self._profile, spec)
        remedy = smaller_layout(self._profile, model.placement.layout)
        with device_errors(remedy), _lora_blamed(spec), torch.no_grad():
            try:
                watch.check()
                with model.adapters.applied(spec.lora, lora):
                    latents = self._denoise(spec, watch, show)
                return self._decode(latents, spec, allocate=allocate, watch=watch)
            except torch.OutOfMemoryError:
                model.adapters.forget()  # the next try has that much more room
                raise
            finally:
                model.settle_down()

    def is_busy(self) -> bool:
        return False  # a call that ended left nothing on the device

    def close(self) -> None:
        self._loaded = None
        gc.collect()
        torch.cuda.empty_cache()
        if torch.cuda.is_available():
            give_back()

    @property
    def _model(self) -> "_Loaded":
        if self._loaded is None:
            raise EngineFailed("the model is not loaded; call load() first")
        return self._loaded

    def _denoise(self, spec: ClipSpec, watch: Watch, show: Show | None) -> torch.Tensor:
        model, pipe = self._model, self._model.pipe
        is_guided = spec.guidance_scale > 1
        watch.report(Phase.ENCODING_TEXT, 0, 1)
        positive = model.embeddings.get(spec.prompt)
        negative = model.embeddings.get(spec.negative_prompt) if is_guided else None
        watch.report(Phase.ENCODING_TEXT, 1, 1)
        model.placement.before_denoising()
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
            callback_on_step_end=self._after_step(spec, show),
            callback_on_step_end_tensor_inputs=[],
            max_sequence_length=self._profile.max_text_tokens,
            output_type="latent",
        ).frames
        return latents

    def _after_step(self, spec: ClipSpec, show: Show | None) -> Callable[..., dict[str, Any]]:
        """Return diffusers' callback, which counts steps and shows pictures after some."""
        model = self._model
        is_shown = show is not None and model.placement.has_room_for_previews
        steps = preview_steps(spec.steps) if is_shown else ()

        def after_step(pipe: Any, index: int, _t: Any, _tensors: Any) -> dict[str, Any]:
            model.pulse.end_step(index + 1)
            if show is not None and index + 1 in steps:
                # The scheduler keeps what it predicted the clean clip to be.
                first = pipe.scheduler.model_outputs[-1][:, :, :1]
                picture = np.empty((1, spec.native.height_px, spec.native.width_px, 3), np.uint8)
                _draw(pipe.vae, first, picture, on_chunk=lambda _done, _total: None)
                show(index + 1, picture[0])
            return {}

        return after_step

    def _decode(
        self, latents: torch.Tensor, spec: ClipSpec, *, allocate: Allocate, watch: Watch
    ) -> Frames:
        frames = allocate((spec.num_frames, spec.native.height_px, spec.native.width_px, 3))
        watch.report(Phase.DECODING, 0, spec.num_frames)
        self._model.placement.before_decoding()

        def on_chunk(done: int, total: int) -> None:
            watch.check()
            watch.report(Phase.DECODING, done, total)

        _draw(self._model.pipe.vae, latents, frames, on_chunk=on_chunk)
        return frames

    def _warm_shapes(self) -> list[tuple[Resolution, Size]]:
        """Return one size of each area: to the experts, 9:16 is as long a row of tokens as 16:9.

        Further shapes than 16:9 are worth the wait only where each is compiled.
        """
        profile = self._profile
        aspects = profile.aspects if profile.compile else (Aspect.WIDE,)
        shapes: dict[int, tuple[Resolution, Size]] = {}
        for resolution in profile.sizes:
            for aspect in aspects:
                size = profile.native_size(resolution, aspect)
                shapes.setdefault(size.width_px * size.height_px, (resolution, size))
        return list(shapes.values())

    def _warm_spec(self, resolution: Resolution, size: Size) -> ClipSpec:
        profile = self._profile
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
    parts: Parts
    placement: Placement
    pulse: Pulse
    embeddings: EmbeddingCache
    adapters: Adapters

    @property
    def pipe(self) -> Any:
        return self.parts.pipe

    def settle_down(self) -> None:
        """Leave nothing of a clip behind: the next one starts the same after any ending."""
        self.pulse.stop()
        self.pipe.vae.clear_cache()
        self.pipe.maybe_free_model_hooks()
        self.placement.settle_down()


@contextmanager
def _lora_blamed(spec: ClipSpec) -> Iterator[None]:
    """Say of bad output that its LoRA made it, if there is one: a retry would end the same.

    And the engine is above suspicion: no tenant's LoRA may open the breaker of a pool.
    """
    try:
        yield
    except BadOutput as error:
        if spec.lora is None:
            raise
        raise LoraInvalid(
            f"{error}, with the LoRA {spec.lora.name!r} at strength {spec.lora.strength:g}; take"
            " less of it, or none"
        ) from error


def _encode(pipe: Any, placement: Placement, text: str, *, max_tokens: int) -> torch.Tensor:
    with placement.encoding():
        embedding: torch.Tensor = pipe.encode_prompt(
            text, do_classifier_free_guidance=False, max_sequence_length=max_tokens
        )[0]
    return embedding


def _draw(
    vae: Any, latents: torch.Tensor, frames: Frames, *, on_chunk: Callable[[int, int], None]
) -> None:
    """Decode *latents* into *frames*, which are as many as they hold; see `Drain`."""
    carry = carrier(latents.device)
    drain = Drain(frames, vae.config.patch_size, on_chunk=on_chunk, carry=carry)
    hook = vae.decoder.register_forward_hook(drain)
    try:
        vae.decode(_unscale(latents, vae), return_dict=False)
    finally:
        hook.remove()
    drain.finish()


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
