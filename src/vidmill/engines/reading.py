"""Reads the parts of a diffusers folder: each file straight to where its part will lie.

A part is made without memory and given its tensors as they come off the disk, so nothing is copied
twice and no random numbers are drawn. Files are read by several threads, both experts' at once, by
plain reads: mapped into memory they would come page by page. Dtypes are exactly those of
`from_pretrained`.
"""

import json
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vidmill.domain.errors import ModelInvalid
from vidmill.domain.profile import ModelProfile
from vidmill.engines.folder import PARTS, weight_files
from vidmill.engines.pinning import give_back
from vidmill.engines.safetensors_header import Tensor as Stored
from vidmill.engines.safetensors_header import read_header
from vidmill.telemetry import get_logger

log = get_logger(__name__)

_THREADS = 8
"""Files read at once. Each thread holds one tensor (A14B's largest: 2.1 GB, the text encoder's
table) and copies as fast as one core does; a disk that is faster than eight is rare."""

_STORED_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip

Homes = Mapping[str, torch.device]
"""Where each part is to lie when it is read, by its folder's name."""


def read_pipeline(profile: ModelProfile, folder: Path, homes: Homes) -> Any:
    """Return a `WanPipeline` of the weights in *folder*, each part on its device of *homes*.

    Raises:
        ModelInvalid: A part lacks weights.
        OSError, ValueError, KeyError, TypeError, SafetensorError: As the libraries have it.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read at import; the weights lie on disk by now
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    parts = read_parts(profile, folder, homes)
    pipe = diffusers.WanPipeline.from_pretrained(
        folder,
        **parts,
        scheduler=diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=profile.flow_shift
        ),
        local_files_only=True,
    )
    pipe.register_to_config(boundary_ratio=profile.boundary_ratio)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def read_parts(profile: ModelProfile, folder: Path, homes: Homes) -> dict[str, nn.Module]:
    """Return the modules of *folder* that have weights, by name."""
    started = time.monotonic()
    parts = {name: _hollow(folder, name) for name in PARTS}
    jobs = [
        _Job(file, parts[name], _dtype(profile, name), homes[name])
        for name in PARTS
        for file in weight_files(folder, name)
    ]
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="read") as threads:
        for _ in threads.map(_Job.run, jobs):
            pass  # what failed is raised here
    for name, part in parts.items():
        _finish(part, folder / name)
        part.to(homes[name])  # buffers that no file holds
    if any(home.type == "cuda" for home in homes.values()):
        torch.cuda.synchronize()
        give_back()  # gigabytes that were pinned to read through
    seconds = time.monotonic() - started
    size_bytes = sum(job.file.stat().st_size for job in jobs)
    log.info("weights_read", bytes=size_bytes, seconds=round(seconds, 3), files=len(jobs))
    return parts


def _dtype(profile: ModelProfile, name: str) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, profile.vae_dtype if name == "vae" else profile.dtype)
    return dtype


def _hollow(folder: Path, name: str) -> nn.Module:
    """Return the part *name* whose parameters have shapes and no memory."""
    import diffusers
    import transformers
    from accelerate import init_empty_weights

    with init_empty_weights():  # parameters only: buffers are computed, and no file holds them
        if name == "text_encoder":
            config = transformers.UMT5Config.from_pretrained(folder / name, local_files_only=True)
            part: nn.Module = transformers.UMT5EncoderModel(config)
        else:
            kind = diffusers.AutoencoderKLWan if name == "vae" else diffusers.WanTransformer3DModel
            part = kind.from_config(json.loads((folder / name / "config.json").read_text("utf-8")))
    return part.eval()


@dataclass(frozen=True)
class _Job:
    """One file whose tensors go into one part."""

    file: Path
    part: nn.Module
    dtype: torch.dtype
    home: torch.device

    def run(self) -> None:
        kept = _float32_names(self.part, self.dtype)
        header = read_header(self.file)
        with self.file.open("rb", buffering=0) as stream:
            for name, stored in sorted(header.tensors.items(), key=lambda item: item[1].start):
                owner, _, leaf = name.rpartition(".")
                try:
                    module = self.part.get_submodule(owner)
                    hollow: Tensor = getattr(module, leaf)
                except AttributeError:
                    continue  # the file holds more than the part has; what it lacks is found later
                if stored.shape != hollow.shape:
                    shapes = f"{stored.shape}, not {tuple(hollow.shape)}"
                    raise ValueError(f"{self.file.name} has {name} of shape {shapes}")
                is_kept = not kept.isdisjoint(name.split("."))
                stream.seek(header.data_start + stored.start)
                tensor = self._read(stream, stored)
                tensor = tensor.to(torch.float32 if is_kept else self.dtype)
                module.register_parameter(leaf, nn.Parameter(tensor, requires_grad=False))

    def _read(self, stream: FileIO, stored: Stored) -> Tensor:
        # From pinned memory the copy to a GPU runs while the next tensor is read.
        is_pinned = self.home.type == "cuda"
        raw = torch.empty(stored.size_bytes, dtype=torch.uint8, pin_memory=is_pinned)
        piece: memoryview[int] = memoryview(raw.numpy())  # type: ignore[arg-type]  # its stubs
        while piece:
            count = stream.readinto(piece)
            if not count:
                raise ValueError(f"{self.file.name} ended early; it was changed while it was read")
            piece = piece[count:]
        tensor = raw.view(_STORED_DTYPES[stored.dtype]).view(stored.shape)
        return tensor.to(self.home, non_blocking=True)


def _float32_names(part: nn.Module, dtype: torch.dtype) -> frozenset[str]:
    """Return the names of modules whose weights stay float32 whatever the rest computes in.

    diffusers keeps them in any type; transformers only where the rest is float16.
    """
    is_theirs = type(part).__module__.startswith("transformers.")
    if is_theirs and dtype is not torch.float16:
        return frozenset()
    return frozenset(getattr(part, "_keep_in_fp32_modules", None) or ())


def _finish(part: nn.Module, folder: Path) -> None:
    for alias, name in (getattr(part, "_tied_weights_keys", None) or {}).items():
        _tie(part, alias, name)
    missing = [name for name, tensor in part.named_parameters() if tensor.is_meta]
    if missing:
        raise ModelInvalid(f"{folder} lacks weights, {missing[0]} first; restore it")


def _tie(part: nn.Module, *names: str) -> None:
    """Make one of the parameters *names*, of which files may hold either or both."""
    read = next((name for name in names if not part.get_parameter(name).is_meta), None)
    if read is None:
        return
    for name in names:
        owner, _, leaf = name.rpartition(".")
        part.get_submodule(owner).register_parameter(leaf, part.get_parameter(read))
