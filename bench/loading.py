"""How fast weights are read: seconds against the bytes and what the disk gives, and the libraries'.

    python bench/loading.py [--gb 0.6] [--rounds 3] [--folder DIR]

Makes a folder of A14B's layout with random weights (bf16, sharded) and reads it three ways in
turns: plain reads of the bytes by as many threads, Vidmill's reader, and `from_pretrained`; from
the disk (the page cache is told to forget the files) and from the page cache. Every loaded page is
touched, because a mapped file that nobody looked at was not read. Prints one JSON object.
"""

import argparse
import dataclasses
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from tests.tiny_random import PROFILE_FILE, build_tiny_random
from vidmill.domain.profile import ModelProfile
from vidmill.engines.folder import PARTS, weight_files
from vidmill.engines.reading import read_parts
from vidmill.profiles import load_profile
from vidmill.telemetry import configure_logging

READERS = 8
PIECE_BYTES = 16 * 2**20
SHARDS = 4


def build(folder: Path, *, size_gb: float) -> ModelProfile:
    """Write a tiny pipeline whose experts are as large as asked, in shards."""
    from diffusers import WanTransformer3DModel  # noqa: PLC0415

    build_tiny_random(folder)
    layers = 8
    width = 128 * max(1, round(math.sqrt(size_gb * 1e9 / 2 / 2 / layers / 13.4) / 128))
    for name in ("transformer", "transformer_2"):
        expert = WanTransformer3DModel(
            num_attention_heads=width // 128,
            attention_head_dim=128,
            in_channels=4,
            out_channels=4,
            text_dim=16,
            ffn_dim=round(2.7 * width),
            num_layers=layers,
        ).to(torch.bfloat16)
        for old in (folder / name).glob("*.safetensors"):
            old.unlink()
        total = sum(tensor.nbytes for tensor in expert.parameters())
        expert.save_pretrained(folder / name, max_shard_size=total // SHARDS + 1)
    return load_profile(str(folder / PROFILE_FILE))


def files_of(folder: Path) -> list[Path]:
    return [file for name in PARTS for file in weight_files(folder, name)]


def forget(folder: Path) -> None:
    """Have the kernel drop the files from its page cache."""
    for file in files_of(folder):
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def read_bytes(folder: Path) -> None:
    def read(file: Path) -> None:
        piece = bytearray(PIECE_BYTES)
        with file.open("rb", buffering=0) as stream:
            while stream.readinto(piece):
                pass

    with ThreadPoolExecutor(READERS) as threads:
        list(threads.map(read, files_of(folder)))


def read_ours(profile: ModelProfile, folder: Path) -> None:
    touch(read_parts(profile, folder, dict.fromkeys(PARTS, torch.device("cpu"))))


def read_theirs(profile: ModelProfile, folder: Path) -> None:
    from diffusers import AutoencoderKLWan, WanTransformer3DModel  # noqa: PLC0415
    from transformers import UMT5EncoderModel  # noqa: PLC0415

    dtype = getattr(torch, profile.dtype)
    kinds: dict[str, Any] = {
        "transformer": WanTransformer3DModel,
        "transformer_2": WanTransformer3DModel,
        "text_encoder": UMT5EncoderModel,
        "vae": AutoencoderKLWan,
    }
    touch({name: kind.from_pretrained(folder / name, dtype=dtype) for name, kind in kinds.items()})


def touch(parts: dict[str, Any]) -> None:
    for part in parts.values():
        for tensor in part.parameters():
            tensor.detach().view(-1)[:: 4096 // tensor.element_size()].sum()


def seconds(act: Callable[[], None]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def measure(folder: Path, profile: ModelProfile, *, rounds: int, is_cold: bool) -> dict[str, Any]:
    ways: dict[str, Callable[[], None]] = {
        "disk": lambda: read_bytes(folder),
        "ours": lambda: read_ours(profile, folder),
        "from_pretrained": lambda: read_theirs(profile, folder),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for act in ways.values():  # imports are nobody's reading
        act()
    for _ in range(rounds):
        for name, act in ways.items():
            if is_cold:
                forget(folder)
            taken[name].append(seconds(act))
    middle = {name: statistics.median(values) for name, values in taken.items()}
    size_bytes = sum(file.stat().st_size for file in files_of(folder))
    return {
        "mb": round(size_bytes / 1e6),
        "seconds": {name: [round(value, 3) for value in values] for name, values in taken.items()},
        "gb_per_s": {name: round(size_bytes / 1e9 / value, 2) for name, value in middle.items()},
        "ours_of_disk": round(middle["ours"] / middle["disk"], 2),
        "ours_of_from_pretrained": round(middle["ours"] / middle["from_pretrained"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gb", type=float, default=0.6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to write, on the disk to be measured")
    options = parser.parse_args()
    configure_logging("warning", "text")
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        folder = Path(place)
        profile = dataclasses.replace(build(folder, size_gb=options.gb), dtype="bfloat16")
        found = {
            "from the disk": measure(folder, profile, rounds=options.rounds, is_cold=True),
            "from the page cache": measure(folder, profile, rounds=options.rounds, is_cold=False),
        }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
