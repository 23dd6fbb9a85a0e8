"""What makes the experts faster than as published, done as the profile asks.

There is one order that works: fused weights are rounded to FP8, compiled blocks call those, a step
cache skips compiled blocks, and the hooks of `Pulse` and of offloading come around all of it,
uncompiled.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from vidmill.domain.errors import ModelInvalid
from vidmill.domain.profile import ModelProfile, StepCache
from vidmill.engines.attention import choose_attention, is_compilable
from vidmill.engines.distilled import SAMPLER, Pair, fuse_pair
from vidmill.engines.fp8 import require_fp8, to_fp8

_MOST_SHAPES = 256
"""Compiled forms of a block that dynamo keeps: one per length of clip, area and (since a layer with
a LoRA is another class) set of layers a LoRA changes. Its own limit is 8; what exceeds it fails."""


def require_possible(profile: ModelProfile, *, device: torch.device) -> None:
    """Raise `ModelInvalid` for what *profile* asks in vain; cheap, so before weights are read."""
    if cache := profile.step_cache:
        if profile.distilled:
            raise ModelInvalid(
                f"{profile.name} has a distilled pair and a step cache; of so few steps none can"
                " be skipped: remove step_cache"
            )
        _require_known(cache.kind, _STEP_CACHES, "step_cache.kind")
    if profile.compile:
        _require_known(profile.compile, torch.compiler.list_backends(None), "compile")
        _require_compiler(profile.compile, device=device)
    if profile.gemm == "fp8":
        require_fp8(device)


def speed_up(
    pipe: Any, profile: ModelProfile, pair: Pair | None, *, device: torch.device
) -> Mapping[str, str]:
    """Change the experts of *pipe*, not yet placed for serving, as *profile* says.

    *pair* are the files of `profile.distilled`; *device* is where the experts will compute. What
    was chosen or added is returned, for the engine's identity.

    Raises:
        ModelInvalid: No attention kernel runs, or the pair does not fit.
    """
    experts = (pipe.transformer, pipe.transformer_2)
    dtype = getattr(torch, profile.dtype)
    chosen = {"attention": choose_attention(experts, profile.attention, device=device, dtype=dtype)}
    if profile.distilled and pair:
        strength = profile.distilled.strength
        fuse_pair(pair, high=experts[0], low=experts[1], strength=strength, device=device)
        pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, **SAMPLER)
        chosen["distilled_sha256"] = pair.sha256()
    for expert in experts:
        if profile.gemm == "fp8":
            to_fp8(expert.blocks, device=device)
    if profile.compile:
        head_dim = pipe.transformer.config.attention_head_dim
        is_whole = is_compilable(chosen["attention"], head_dim=head_dim, device=device, dtype=dtype)
        for expert in experts:
            _compile_blocks(expert, profile.compile, is_whole=is_whole)
    if profile.step_cache:
        _skip_steps(experts, profile.step_cache)
    return chosen


def _compile_blocks(expert: Any, backend: str, *, is_whole: bool) -> None:
    """Compile what the blocks of *expert* compute, once for all of them and for each shape.

    Only `forward`: diffusers' `compile_repeated_blocks` takes the module's whole call, hooks
    included, and an exception out of a hook, which is how a cancel arrives, is more than dynamo
    can compile. Where attention cannot be followed a block is not compiled whole, but around it.
    """
    torch._dynamo.config.recompile_limit = _MOST_SHAPES  # noqa: SLF001
    for block in expert.blocks:
        block.forward = torch.compile(
            block.forward, backend=backend, fullgraph=is_whole, dynamic=False
        )


def _require_compiler(backend: str, *, device: torch.device) -> None:
    """Raise `ModelInvalid` unless *backend* makes code here; `inductor` wants a C compiler."""
    try:
        torch.compile(torch.neg, backend=backend, fullgraph=True)(torch.ones(1, device=device))
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ImportError, OSError) as error:
        reason = str(getattr(error, "inner_exception", error)).strip().splitlines()[0]
        raise ModelInvalid(
            f'compile = "{backend}" makes no code for {device}: {reason}; install what it asks for'
            ' (a C compiler, on a GPU Triton as well), or set compile = ""'
        ) from error


def _skip_steps(experts: tuple[Any, Any], cache: StepCache) -> None:
    """Have *experts* skip what hardly changes; each, when called, drops what the other has kept.

    A clip never goes back to the high-noise expert, and 81 frames at 720p are 4.6 GB of an expert.
    """
    for expert, other in (experts, experts[::-1]):
        expert.enable_cache(_STEP_CACHES[cache.kind](cache))
        expert.register_forward_pre_hook(partial(_forget, other))


def _forget(other: Any, *_: object) -> None:
    other._reset_stateful_cache()  # noqa: SLF001


def _first_block(cache: StepCache) -> Any:
    from diffusers import FirstBlockCacheConfig

    return FirstBlockCacheConfig(threshold=cache.threshold)


_STEP_CACHES: Mapping[str, Callable[[StepCache], Any]] = {"first_block": _first_block}
"""diffusers' caches by name. `mag` would need numbers measured per checkpoint and step count."""


def _require_known(name: str, known: Any, key: str) -> None:
    if name not in known:
        raise ModelInvalid(f"{key} = {name!r} is unknown; choose one of: {', '.join(known)}")
