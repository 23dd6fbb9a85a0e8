import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny_random import PROFILE_FILE
from vidmill.domain.errors import ModelInvalid
from vidmill.engines.anatomy import anatomy_of
from vidmill.profiles import load_profile


def test_a_folder_is_counted_by_its_headers(sound_folder: Path) -> None:
    anatomy = anatomy_of(load_profile(str(sound_folder / PROFILE_FILE)), sound_folder)
    for name, counted in anatomy.params.items():
        (file,) = (sound_folder / name).glob("*.safetensors")
        assert counted == sum(tensor.numel() for tensor in load_file(file).values())
    assert (anatomy.item_bytes, anatomy.width, anatomy.num_blocks) == (4, 32, 2)
    assert anatomy.expert_bytes("transformer") == anatomy.params["transformer"] * 4


def test_a_table_held_under_both_of_its_names_is_counted_once(folder: Path) -> None:
    profile = load_profile(str(folder / PROFILE_FILE))
    once = anatomy_of(profile, folder).params["text_encoder"]
    file = folder / "text_encoder/model.safetensors"
    tensors = load_file(file)
    tensors["encoder.embed_tokens.weight"] = torch.clone(tensors["shared.weight"])
    save_file(tensors, file, metadata={"format": "pt"})
    assert anatomy_of(profile, folder).params["text_encoder"] == once


def test_without_a_folder_the_profile_must_say_the_sizes() -> None:
    tiny = load_profile("tiny")
    with pytest.raises(ModelInvalid, match=r"sizes of tiny are not known.*add .params_m"):
        anatomy_of(dataclasses.replace(tiny, params_m={}), None)


def test_a_folder_that_cannot_be_read_is_named(folder: Path) -> None:
    (folder / "vae/config.json").write_text(json.dumps([]))
    with pytest.raises(ModelInvalid, match=r"vae/config\.json is not a JSON object"):
        anatomy_of(load_profile(str(folder / PROFILE_FILE)), folder)
