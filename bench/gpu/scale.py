"""True size, or the rehearsal's: the same profiles, with networks that any CPU runs at once."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from vidmill.domain.clip import ClipSpec, Resolution, Size
from vidmill.domain.profile import ModelProfile, Part
from vidmill.profiles import all_profiles

_TINY_EXPERT: Mapping[str, Any] = {
    "patch_size": [1, 2, 2],
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 16,
    "freq_dim": 32,
    "ffn_dim": 64,
    "num_layers": 2,
    "rope_max_seq_len": 64,
}
_TINY_PARTS: Mapping[str, Mapping[str, Any]] = {
    "transformer": _TINY_EXPERT,
    "transformer_2": _TINY_EXPERT,
    "text_encoder": {
        "vocab_size": 320,
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 32,
        "num_layers": 1,
        "num_heads": 2,
        "pad_token_id": 0,
        "eos_token_id": 1,
    },
    "vae": {
        "base_dim": 4,
        "z_dim": 4,
        "dim_mult": [1, 1, 1, 1],
        "num_res_blocks": 1,
        "temperal_downsample": [False, True, True],
        "latents_mean": [0.0] * 4,
        "latents_std": [1.0] * 4,
    },
}


def true_profiles() -> dict[str, ModelProfile]:
    """Return the shipped profiles that this process could run at full size, the plainest first."""
    profiles = [p for p in all_profiles() if not p.is_toy and p.engine == "wan"]
    profiles.sort(key=lambda p: (p.gemm != "native", bool(p.compile), p.name))
    return {profile.name: profile for profile in profiles}


def rehearsed(profile: ModelProfile) -> ModelProfile:
    """Return *profile* with small networks and clips; steps, guidance and switches stay."""
    return dataclasses.replace(
        profile,
        sizes={Resolution.P480: Size(64, 48), Resolution.P720: Size(80, 48)},
        shapes={},
        native_fps=2,
        cpu_threads=1,
        max_text_tokens=16,
        compile=profile.compile and "eager",  # dynamo's part of it; generating code takes minutes
        params_m=dict.fromkeys(_TINY_PARTS, 0.1),
        parts=tuple(Part(folder=name, config=config) for name, config in _TINY_PARTS.items()),
    )


def clip_spec(
    profile: ModelProfile, resolution: Resolution, *, duration_s: float, steps: int = 0
) -> ClipSpec:
    """Return what to make: the profile's own numbers, seed 1, *steps* (0 = all of them)."""
    size = profile.sizes[resolution]
    return ClipSpec(
        prompt="a red ball rolls over a wooden table, morning light",
        negative_prompt=profile.default_negative_prompt,
        profile=profile.name,
        resolution=resolution,
        size=size,
        native=size,
        duration_s=duration_s,
        fps=profile.native_fps,
        native_fps=profile.native_fps,
        num_frames=profile.num_frames(duration_s),
        steps=steps or profile.steps,
        guidance_scale=profile.guidance_scale,
        guidance_scale_2=profile.guidance_scale_2,
        flow_shift=profile.flow_shift,
        seed=1,
    )
