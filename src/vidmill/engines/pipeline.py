"""Loads a diffusers folder of the Wan2.2 architecture as its profile says."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from vidmill.domain.errors import EngineFailed, EngineOutOfMemory, ModelInvalid
from vidmill.domain.profile import ModelProfile
from vidmill.telemetry import get_logger

log = get_logger(__name__)

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str) -> torch.device:
    """Return the device called *name*; `auto` is the first CUDA device, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


@contextmanager
def device_errors() -> Iterator[None]:
    """Turn torch's errors into ours: no memory -> `EngineOutOfMemory`, others -> `EngineFailed`."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        torch.cuda.empty_cache()
        raise EngineOutOfMemory(f"the device ran out of memory: {_first_line(error)}") from error
    except RuntimeError as error:
        if "allocate memory" in str(error):  # torch's CPU allocator has no class of its own
            raise EngineOutOfMemory(f"the host ran out of memory: {_first_line(error)}") from error
        raise EngineFailed(f"the device failed: {_first_line(error)}") from error


def load_pipeline(profile: ModelProfile, folder: Path, *, device: torch.device) -> Any:
    """Return a `WanPipeline` of the weights in *folder*, on *device*, ready to call.

    Raises:
        ModelInvalid: The folder does not hold what its own index promises.
        EngineOutOfMemory: The weights do not fit.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read at import; the weights lie on disk by now
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    with device_errors():
        try:
            pipe = _read(profile, folder)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise ModelInvalid(
                f"{folder} does not load: {_first_line(error)}; restore the folder from its source"
            ) from error
        _refuse_missing(pipe, folder)
        _choose_attention(pipe, profile.attention)
        _place(pipe, profile, device=device)
    return pipe


def _read(profile: ModelProfile, folder: Path) -> Any:
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline

    # The VAE comes separately: the pipeline's own dtype argument would cast it too.
    vae = AutoencoderKLWan.from_pretrained(
        folder, subfolder="vae", dtype=_DTYPES[profile.vae_dtype], local_files_only=True
    )
    pipe = WanPipeline.from_pretrained(
        folder,
        vae=vae,
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=profile.flow_shift
        ),
        dtype=_DTYPES[profile.dtype],
        local_files_only=True,
    )
    pipe.register_to_config(boundary_ratio=profile.boundary_ratio)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _refuse_missing(pipe: Any, folder: Path) -> None:
    for name in ("text_encoder", "transformer", "transformer_2", "vae"):
        part = getattr(pipe, name)
        missing = [key for key, tensor in part.named_parameters() if tensor.is_meta]
        if missing:
            raise ModelInvalid(f"{folder / name} lacks weights, {missing[0]} first; restore it")


def _choose_attention(pipe: Any, names: tuple[str, ...]) -> None:
    for name in names:
        try:
            for expert in (pipe.transformer, pipe.transformer_2):
                expert.set_attention_backend(name)
        except (RuntimeError, ValueError, ImportError) as error:
            log.info("attention_unavailable", backend=name, reason=_first_line(error))
            continue
        log.info("attention_chosen", backend=name)
        return
    raise ModelInvalid(f"none of the attention backends {', '.join(names)} runs here; add `native`")


def _place(pipe: Any, profile: ModelProfile, *, device: torch.device) -> None:
    if profile.memory == "offload" and device.type != "cpu":
        pipe.enable_model_cpu_offload(device=device)
    else:
        pipe.to(device)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
