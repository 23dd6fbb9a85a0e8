"""Writes the finished parts as one ordinary fp16 diffusers folder."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import UniPCMultistepScheduler, WanPipeline

from training.experts import BOUNDARY, FLOW_SHIFT
from training.text_tower import TextTower

MAX_FOLDER_BYTES: Final = 12_000_000
"""The folder travels inside the package."""


def new_pipeline(tower: TextTower, codec: Any, high: Any, low: Any) -> Any:
    """A WanPipeline of the trained parts, as the engine loads it."""
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=FLOW_SHIFT,
        num_train_timesteps=1000,
    )
    return WanPipeline(
        tokenizer=tower.tokenizer,
        text_encoder=tower.encoder,
        vae=codec,
        scheduler=scheduler,
        transformer=high,
        transformer_2=low,
        boundary_ratio=BOUNDARY,
    )


def folder_bytes(folder: Path) -> int:
    """Total size of all files below ``folder``."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def export_folder(pipeline: Any, folder: Path) -> None:
    """Write beside ``folder``, then swap: a reader sees the old model or the new one.

    Raises:
        ValueError: the result is larger than ``MAX_FOLDER_BYTES``.
    """
    partial, previous = (folder.with_name(f".{folder.name}.{end}") for end in ("new", "old"))
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(previous, ignore_errors=True)
    copy.deepcopy(pipeline).to(torch.float16).save_pretrained(partial)
    index = partial / "model_index.json"
    # transformers 5 writes a class name that older versions do not know.
    text = index.read_text("utf-8").replace("TokenizersBackend", "PreTrainedTokenizerFast")
    index.write_text(text, "utf-8")
    for config in partial.glob("*/config.json"):
        _forget_origin(config)
    size = folder_bytes(partial)
    if size > MAX_FOLDER_BYTES:
        raise ValueError(f"{partial} has {size} bytes, more than {MAX_FOLDER_BYTES}")
    if folder.exists():
        folder.rename(previous)
    partial.rename(folder)
    shutil.rmtree(previous, ignore_errors=True)


def _forget_origin(config: Path) -> None:
    """Diffusers notes the path that a part was loaded from; it means nothing elsewhere."""
    fields = json.loads(config.read_text("utf-8"))
    fields.pop("_name_or_path", None)
    config.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", "utf-8")


def load_pipeline(folder: Path) -> Any:
    """The exported folder in float32, the type it runs in on a CPU."""
    pipeline = WanPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
