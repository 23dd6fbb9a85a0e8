"""Sizes of a model's parts: from the headers of its folder, or else from its profile. No torch."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidmill.domain.clip import Size
from vidmill.domain.errors import ModelInvalid
from vidmill.domain.layout import Anatomy, MemoryPlan, plan_memory
from vidmill.domain.profile import ModelProfile
from vidmill.engines.folder import PARTS, read_part
from vidmill.engines.hub import local_folder
from vidmill.profiles import revision_of

_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_TIED = ("shared.weight", "encoder.embed_tokens.weight")
"""Names of one table of the text encoder; some files hold it under both."""


def anatomy_of(profile: ModelProfile, folder: Path | None) -> Anatomy:
    """Return the sizes of the model in *folder*, or if that is None of what *profile* says of it.

    Raises:
        ModelInvalid: The folder cannot be read, or there is none and the profile lacks a size.
    """
    configs: Mapping[str, Mapping[str, Any]] = {p.folder: p.config for p in profile.parts}
    params: Mapping[str, int] = {
        name: round(millions * 1e6) for name, millions in profile.params_m.items()
    }
    if folder is not None:
        read = {name: read_part(folder, name) for name in PARTS}
        configs = {name: config for name, (config, _) in read.items()}
        params = {name: _count(shapes) for name, (_, shapes) in read.items()}
    try:
        return _anatomy(profile, configs, params)
    except KeyError as error:
        raise ModelInvalid(
            f"the sizes of {profile.name} are not known: neither a folder nor the profile says"
            f" {error}; give a folder, or add [params_m] and [parts] to the profile"
        ) from error


def plan_of(
    profile: ModelProfile,
    source: str,
    *,
    device_bytes: int,
    gpus: int = 1,
    duration_s: float = 0.0,
) -> MemoryPlan:
    """Return what each layout of *profile* needs for its largest clips, against such devices.

    The files at *source* are counted if they are here. A *duration_s* of 0 stands for clips as long
    as the model is warmed with.

    Raises:
        ModelInvalid: As `anatomy_of`.
    """
    return plan_memory(
        anatomy_of(profile, local_folder(source, revision_of(profile, source))),
        profile.layouts,
        size=largest_size(profile),
        num_frames=profile.num_frames(duration_s or profile.warm_duration_s),
        device_bytes=device_bytes,
        gpus=gpus,
    )


def largest_size(profile: ModelProfile) -> Size:
    """Return the size whose clips take the most memory."""
    return max(profile.native_sizes, key=lambda size: (size.width_px * size.height_px, size))


def _anatomy(
    profile: ModelProfile, configs: Mapping[str, Mapping[str, Any]], params: Mapping[str, int]
) -> Anatomy:
    expert, vae = configs["transformer"], configs["vae"]
    return Anatomy(
        params={name: params[name] for name in PARTS},
        item_bytes=_ITEM_BYTES[profile.dtype],
        vae_item_bytes=_ITEM_BYTES[profile.vae_dtype],
        is_fp8=profile.gemm == "fp8",
        cached_passes=(2 if profile.guidance_scale > 1 else 1) if profile.step_cache else 0,
        num_blocks=expert["num_layers"],
        width=expert["num_attention_heads"] * expert["attention_head_dim"],
        ffn_width=expert["ffn_dim"],
        token_px=vae.get("scale_factor_spatial", 8) * expert["patch_size"][1],
        frames_per_latent=vae.get("scale_factor_temporal", 4),
        vae_width=(vae.get("decoder_base_dim") or vae["base_dim"]) * vae["dim_mult"][0],
    )


def _count(shapes: Mapping[str, tuple[int, ...]]) -> int:
    counts = {name: math.prod(shape) for name, shape in shapes.items()}
    if all(name in counts for name in _TIED):
        del counts[_TIED[1]]
    return sum(counts.values())
