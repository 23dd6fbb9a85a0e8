"""Parts read in parallel are those that the libraries' own loaders give, bit for bit."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny_random import PROFILE_FILE
from vidmill.domain.errors import ModelInvalid
from vidmill.domain.profile import ModelProfile
from vidmill.engines.folder import PARTS
from vidmill.engines.reading import read_parts, read_pipeline
from vidmill.profiles import load_profile

HOMES = dict.fromkeys(PARTS, torch.device("cpu"))

Dtype = Literal["float32", "bfloat16", "float16"]


def profile_of(folder: Path, dtype: Dtype = "bfloat16") -> ModelProfile:
    return dataclasses.replace(load_profile(str(folder / PROFILE_FILE)), dtype=dtype)


def by_the_libraries(folder: Path, dtype: Dtype) -> dict[str, Any]:
    from diffusers import AutoencoderKLWan, WanTransformer3DModel
    from transformers import UMT5EncoderModel

    def open_part(kind: Any, name: str, dtype: str) -> Any:
        return kind.from_pretrained(folder / name, dtype=getattr(torch, dtype))

    return {
        "transformer": open_part(WanTransformer3DModel, "transformer", dtype),
        "transformer_2": open_part(WanTransformer3DModel, "transformer_2", dtype),
        "text_encoder": open_part(UMT5EncoderModel, "text_encoder", dtype),
        "vae": open_part(AutoencoderKLWan, "vae", "float32"),
    }


def everything(part: Any) -> dict[str, Any]:
    tensors = {**dict(part.named_parameters()), **dict(part.named_buffers())}
    return {name: (tensor.dtype, tensor) for name, tensor in tensors.items()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_parts_equal_those_of_from_pretrained_bit_for_bit(sound_folder: Path, dtype: Dtype) -> None:
    read = read_parts(profile_of(sound_folder, dtype), sound_folder, HOMES)
    for name, theirs in by_the_libraries(sound_folder, dtype).items():
        found, wanted = everything(read[name]), everything(theirs)
        assert found.keys() == wanted.keys()
        for key, (kind, tensor) in wanted.items():
            assert found[key][0] is kind, f"{name}.{key}"
            assert torch.equal(found[key][1], tensor), f"{name}.{key}"
        assert [type(module) for module in read[name].modules()] == [
            type(module) for module in theirs.modules()
        ]
        assert not read[name].training


def test_shards_are_read_like_one_file(folder: Path) -> None:
    part = folder / "transformer"
    whole = part / "diffusion_pytorch_model.safetensors"
    tensors = load_file(whole)
    names = sorted(tensors)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for shard, held in shards.items():
        save_file({name: tensors[name] for name in held}, part / shard, metadata={"format": "pt"})
    places = {name: shard for shard, held in shards.items() for name in held}
    (part / f"{whole.name}.index.json").write_text(_index(places))
    before = read_parts(profile_of(folder), folder, HOMES)["transformer_2"]
    whole.unlink()

    read = read_parts(profile_of(folder), folder, HOMES)

    for name, tensor in read["transformer"].named_parameters():
        kind = tensor.dtype
        assert torch.equal(tensor, tensors[name].to(kind))
    assert everything(read["transformer_2"]).keys() == everything(before).keys()


@pytest.mark.parametrize("held", ["shared.weight", "encoder.embed_tokens.weight"])
def test_the_text_encoders_table_may_have_either_of_its_names(folder: Path, held: str) -> None:
    file = folder / "text_encoder/model.safetensors"
    tensors = load_file(file)
    table = tensors.pop("shared.weight")
    save_file(tensors | {held: table}, file, metadata={"format": "pt"})

    encoder: Any = read_parts(profile_of(folder, "float16"), folder, HOMES)["text_encoder"]

    assert torch.equal(encoder.shared.weight, table)
    assert encoder.encoder.embed_tokens.weight is encoder.shared.weight


def test_a_tensor_of_another_shape_is_named(folder: Path) -> None:
    file = folder / "vae/diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["decoder.conv_in.bias"] = torch.zeros(3)
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"decoder\.conv_in\.bias of shape \(3,\), not"):
        read_parts(profile_of(folder), folder, HOMES)


def test_a_part_that_lacks_a_tensor_is_no_model(folder: Path) -> None:
    file = folder / "transformer_2/diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors["proj_out.bias"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelInvalid, match=r"transformer_2 lacks weights, proj_out\.bias first"):
        read_pipeline(profile_of(folder), folder, HOMES)


def _index(places: dict[str, str]) -> str:
    import json

    return json.dumps({"metadata": {}, "weight_map": places})
