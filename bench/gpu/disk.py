"""Load time: the engine's own way from files to the device, against bytes over the disk's speed.

The low-noise expert's folder is a link to the high-noise one's, so 28.6 GB on disk stand for both.
"""

import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from bench.gpu.instruments import figure, settle
from bench.gpu.weights import PART_CLASSES, random_part
from tests.tiny_random import byte_tokenizer
from vidmill.domain.profile import ModelProfile
from vidmill.engines.wan import WanEngine

_ROOM_BYTES = 2 * 10**9
_BLOCK_BYTES = 16 * 2**20
_SAMPLE_BYTES = 8 * 10**9


class NoRoom(Exception):
    """The disk cannot hold the weights."""


def measure_load(profile: ModelProfile, *, device: torch.device) -> dict[str, Any]:
    """Return seconds from files to the device, with the files out of the page cache and in it.

    Raises:
        NoRoom: The temporary directory's disk is too small.
    """
    with tempfile.TemporaryDirectory(prefix="vidmill-load-") as name:
        folder = Path(name)
        started = time.perf_counter()
        _write(profile, folder, device=device)
        os.sync()
        written_s = time.perf_counter() - started
        files = [file for file in folder.rglob("*.safetensors") if not file.parent.is_symlink()]
        on_disk = sum(file.stat().st_size for file in files)
        _forget(files)
        read_bytes_s = _read_speed(max(files, key=lambda file: file.stat().st_size))
        _forget(files)
        cold_s = _load_s(profile, folder, device=device)
        warm_s = _load_s(profile, folder, device=device)
        second = sum(file.stat().st_size for file in (folder / "transformer").iterdir())
    return {
        "disk_gb": figure(on_disk / 1e9),
        "loaded_gb": figure((on_disk + second) / 1e9),
        "written_s": figure(written_s),
        "read_gb_s": figure(read_bytes_s / 1e9),
        "bytes_over_speed_s": figure(on_disk / read_bytes_s),
        "cold_s": figure(cold_s),
        "cached_s": figure(warm_s),
    }


def _write(profile: ModelProfile, folder: Path, *, device: torch.device) -> None:
    """Write a diffusers folder of *profile*, its second expert a link to the first."""
    for name in ("vae", "text_encoder", "transformer"):
        part: Any = random_part(profile, name, draw_on=device, keep_on=device)
        size = sum(tensor.nbytes for tensor in part.parameters())
        if (free := shutil.disk_usage(folder).free) < size + _ROOM_BYTES:
            raise NoRoom(f"{folder.parent} has {free / 1e9:.0f} GB, {name} needs {size / 1e9:.0f}")
        part.save_pretrained(folder / name)
    (folder / "transformer_2").symlink_to("transformer")
    byte_tokenizer(max_tokens=profile.max_text_tokens).save_pretrained(folder / "tokenizer")
    index = {
        "_class_name": "WanPipeline",
        "boundary_ratio": profile.boundary_ratio,
        "scheduler": ["diffusers", "UniPCMultistepScheduler"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        **{name: list(place) for name, place in PART_CLASSES.items()},
    }
    (folder / "model_index.json").write_text(json.dumps(index), "utf-8")


def _forget(files: list[Path]) -> None:
    """Drop *files* from the page cache, where the system has such a call."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _read_speed(file: Path) -> float:
    """Return bytes per second of one reader of *file*, first to last."""
    buffer = bytearray(_BLOCK_BYTES)
    done, started = 0, time.perf_counter()
    with file.open("rb", buffering=0) as stream:
        while done < _SAMPLE_BYTES and (count := stream.readinto(buffer)):
            done += count
    return done / (time.perf_counter() - started)


def _load_s(profile: ModelProfile, folder: Path, *, device: torch.device) -> float:
    engine = WanEngine(profile, str(folder), device=str(device))
    started = time.perf_counter()
    engine.load()
    settle(device)
    seconds = time.perf_counter() - started
    engine.close()
    return seconds
