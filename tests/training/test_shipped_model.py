"""The folder inside the package is complete, small, fp16 and runs at native size."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from training.evaluate import Sampling, expected_of, generate
from training.export import MAX_FOLDER_BYTES, folder_bytes, load_pipeline
from training.scorer import measure
from training.world import HEIGHT_PX, WIDTH_PX, Scene, is_held_out

FOLDER = Path(__file__).parents[2] / "src" / "vidmill" / "models" / "tiny"
PARTS = {"scheduler", "tokenizer", "text_encoder", "transformer", "transformer_2", "vae"}


def test_the_folder_is_complete_and_small() -> None:
    assert {path.name for path in FOLDER.iterdir() if path.is_dir()} == PARTS
    assert folder_bytes(FOLDER) <= MAX_FOLDER_BYTES


def test_the_index_names_classes_that_old_and_new_libraries_know() -> None:
    index = json.loads((FOLDER / "model_index.json").read_text("utf-8"))
    assert index["_class_name"] == "WanPipeline"
    assert index["boundary_ratio"] == 0.875
    assert index["tokenizer"] == ["transformers", "PreTrainedTokenizerFast"]


def test_no_configuration_names_the_machine_it_was_made_on() -> None:
    configs = [json.loads(path.read_text("utf-8")) for path in FOLDER.glob("*/config.json")]
    assert len(configs) == 4
    assert not any("_name_or_path" in config for config in configs)


def test_all_weights_are_half_precision() -> None:
    for path in FOLDER.rglob("*.safetensors"):
        with safe_open(path, "pt") as tensors:
            assert {str(tensors.get_tensor(name).dtype) for name in tensors.keys()} == {  # noqa: SIM118
                "torch.float16"
            }


def test_the_experts_are_a_real_fork() -> None:
    with (
        safe_open(FOLDER / "transformer" / "diffusion_pytorch_model.safetensors", "pt") as high,
        safe_open(FOLDER / "transformer_2" / "diffusion_pytorch_model.safetensors", "pt") as low,
    ):
        names = [name for name in high.keys() if name.endswith("weight")]  # noqa: SIM118
        same = [torch.equal(high.get_tensor(name), low.get_tensor(name)) for name in names]
    assert not any(same)


def test_the_model_draws_captions_of_each_language_that_it_was_never_trained_on() -> None:
    asked = {
        "a blue ball moves right on a black background": Scene(
            "blue", "black", "circle", "right", 0
        ),
        "蓝色背景上一个黄色方块上升": Scene("yellow", "blue", "square", "up", 0),
        "黒い背景で白い三角形が弾む": Scene("white", "black", "triangle", "bounce", 0),
    }
    assert all(is_held_out(scene) for scene in asked.values())
    clips = generate(load_pipeline(FOLDER), list(asked), 13, seed=0, sampling=Sampling())
    assert clips.shape == (3, 13, HEIGHT_PX, WIDTH_PX, 3)
    assert np.isfinite(clips).all()
    seen = {caption: asdict(measure(clip)) for caption, clip in zip(asked, clips, strict=True)}
    assert seen == {caption: expected_of(scene) for caption, scene in asked.items()}
