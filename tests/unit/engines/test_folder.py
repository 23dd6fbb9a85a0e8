import dataclasses
import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from tests.loras import make_pair
from tests.tiny_random import PROFILE_FILE
from vidmill.domain.clip import Resolution, Size
from vidmill.domain.errors import ModelInvalid
from vidmill.domain.profile import Distilled, ModelProfile
from vidmill.engines.folder import check_folder, describe_model, describe_models, require_sound
from vidmill.profiles import load_profile


@pytest.fixture
def profile(folder: Path) -> ModelProfile:
    return load_profile(str(folder / PROFILE_FILE))


def errors(profile: ModelProfile, folder: Path) -> list[tuple[str, str]]:
    return [(f.file, f.problem) for f in check_folder(profile, folder) if f.severity == "error"]


def edit_json(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def rewrite_header(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Apply *change* to the parsed header, leaving the data as it is."""
    raw = file.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


def drop_tensor(file: Path, name: str) -> None:
    tensors = load_file(file)
    del tensors[name]
    save_file(tensors, file, metadata={"format": "np"})


def test_a_sound_folder_has_no_findings(profile: ModelProfile, folder: Path) -> None:
    assert check_folder(profile, folder) == []
    require_sound(profile, folder)


def test_the_shipped_model_is_sound() -> None:
    assert describe_model(load_profile("tiny")).findings == ()


@pytest.mark.parametrize(
    "file",
    [
        "model_index.json",
        "transformer/config.json",
        "transformer_2/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "tokenizer/tokenizer.json",
    ],
)
def test_a_missing_file_is_named(profile: ModelProfile, folder: Path, file: str) -> None:
    (folder / file).unlink()
    assert errors(profile, folder) == [(file, "is missing")]


@pytest.mark.parametrize("keep_bytes", [0, 4, 100, -1, -1000])
def test_truncated_weights_are_found(profile: ModelProfile, folder: Path, keep_bytes: int) -> None:
    file = "transformer/diffusion_pytorch_model.safetensors"
    whole = (folder / file).read_bytes()
    (folder / file).write_bytes(whole[:keep_bytes])
    [(found, problem)] = errors(profile, folder)
    assert found == file
    assert "bytes" in problem or "cut short" in problem or "malformed" in problem


def test_overlong_weights_are_found(profile: ModelProfile, folder: Path) -> None:
    file = "vae/diffusion_pytorch_model.safetensors"
    with (folder / file).open("ab") as stream:
        stream.write(b"surplus")
    [(found, problem)] = errors(profile, folder)
    assert (found, "header promises" in problem) == (file, True)


@pytest.mark.parametrize("text", ["{", "[]", "\xff\xfe"])
@pytest.mark.parametrize(
    "file", ["model_index.json", "vae/config.json", "tokenizer/tokenizer.json"]
)
def test_bad_json_is_found(profile: ModelProfile, folder: Path, file: str, text: str) -> None:
    (folder / file).write_bytes(text.encode("latin-1"))
    [(found, problem)] = errors(profile, folder)
    assert (found, "JSON" in problem) == (file, True)


def test_weights_of_another_shape_than_their_config_are_found(
    profile: ModelProfile, folder: Path
) -> None:
    edit_json(folder / "transformer_2/config.json", num_attention_heads=4)
    problems = [problem for _, problem in errors(profile, folder)]
    assert any("patch_embedding.weight to be (64, 4, 1, 2, 2)" in problem for problem in problems)


def test_a_missing_block_and_a_missing_tensor_are_found(
    profile: ModelProfile, folder: Path
) -> None:
    edit_json(folder / "transformer/config.json", num_layers=3)
    drop_tensor(
        folder / "transformer_2/diffusion_pytorch_model.safetensors", "blocks.1.ffn.net.2.bias"
    )
    assert errors(profile, folder) == [
        ("transformer/config.json", "has num_layers = 3, the profile wants 2"),
        ("transformer/config.json", "means 3 blocks blocks.*, the weights have 2"),
        ("transformer_2/config.json", "means equal blocks, but blocks.1 differs in ffn.net.2.bias"),
    ]


def test_a_tensor_whose_shape_does_not_fill_its_bytes_is_found(
    profile: ModelProfile, folder: Path
) -> None:
    file = "text_encoder/model.safetensors"
    rewrite_header(folder / file, lambda h: h["shared.weight"].update(shape=[259, 17]))
    [(found, problem)] = errors(profile, folder)
    assert (found, "shared.weight" in problem) == (file, True)


def test_a_hole_in_the_data_is_found(profile: ModelProfile, folder: Path) -> None:
    file = "vae/diffusion_pytorch_model.safetensors"
    rewrite_header(folder / file, lambda header: header.pop("decoder.norm_out.gamma"))
    [(found, problem)] = errors(profile, folder)
    assert (found, "hole" in problem) == (file, True)


def test_a_header_that_is_no_table_of_tensors_is_found(profile: ModelProfile, folder: Path) -> None:
    file = "vae/diffusion_pytorch_model.safetensors"
    rewrite_header(folder / file, lambda header: header.update(extra={"dtype": "F32"}))
    [(found, problem)] = errors(profile, folder)
    assert (found, "malformed header" in problem) == (file, True)


def test_a_text_encoder_may_store_its_tied_embedding_under_either_name(
    profile: ModelProfile, folder: Path
) -> None:
    file = folder / "text_encoder/model.safetensors"
    tensors = load_file(file)
    tensors["encoder.embed_tokens.weight"] = tensors.pop("shared.weight")
    save_file(tensors, file, metadata={"format": "np"})
    assert check_folder(profile, folder) == []


def test_a_model_other_than_the_profile_means_is_found(profile: ModelProfile, folder: Path) -> None:
    others = errors(load_profile("a14b-quality"), folder)
    assert ("vae/config.json", "has z_dim = 4, the profile wants 16") in others


def test_an_image_to_video_pipeline_is_refused(profile: ModelProfile, folder: Path) -> None:
    edit_json(
        folder / "model_index.json", _class_name="WanImageToVideoPipeline", transformer_2=None
    )
    assert [problem for _, problem in errors(profile, folder)] == [
        "says _class_name is 'WanImageToVideoPipeline', not WanPipeline",
        "says transformer_2 is None, not WanTransformer3DModel",
    ]


def test_a_size_that_diffusers_would_round_is_found(profile: ModelProfile, folder: Path) -> None:
    sizes = {Resolution.P480: Size(100, 48)}
    odd = dataclasses.replace(profile, sizes=sizes, frame_stride=2)
    assert [problem.split(" (")[0] for _, problem in errors(odd, folder)] == [
        "cannot draw 48x100",
        "cannot draw 100x48",
        "cannot draw 2k+1 frames",
    ]


def shard(folder: Path) -> Path:
    """Spread the first expert over an index and one shard, as large models are stored."""
    part = folder / "transformer"
    whole = part / "diffusion_pytorch_model.safetensors"
    raw = whole.read_bytes()
    header = json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])
    header.pop("__metadata__", None)
    name = "diffusion_pytorch_model-00001-of-00001.safetensors"
    whole.rename(part / name)
    index = part / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(header, name)}))
    return index


def test_sharded_weights_are_read_through_their_index(profile: ModelProfile, folder: Path) -> None:
    shard(folder)
    assert check_folder(profile, folder) == []


def test_a_missing_shard_is_named(profile: ModelProfile, folder: Path) -> None:
    index = shard(folder)
    edit_json(index, weight_map={"proj_out.weight": "gone.safetensors"})
    assert errors(profile, folder) == [("transformer/gone.safetensors", "is missing")]


def test_a_tensor_that_its_shard_lacks_is_named(profile: ModelProfile, folder: Path) -> None:
    index = shard(folder)
    places = json.loads(index.read_text())["weight_map"]
    edit_json(index, weight_map=places | {"blocks.9.extra": next(iter(places.values()))})
    [(_, problem), *_] = errors(profile, folder)
    assert problem == "lacks blocks.9.extra, which the index puts there"


def test_an_index_without_a_map_is_found(profile: ModelProfile, folder: Path) -> None:
    index = shard(folder)
    index.write_text("{}")
    assert errors(profile, folder) == [(index.relative_to(folder).as_posix(), "has no weight_map")]


def test_a_garbled_config_entry_is_found(profile: ModelProfile, folder: Path) -> None:
    edit_json(folder / "vae/config.json", dim_mult=None)
    assert "lacks or garbles an entry" in str(errors(profile, folder))


def test_the_error_raised_names_file_and_remedy_and_stops_at_three(
    profile: ModelProfile, folder: Path
) -> None:
    for part in ("transformer", "transformer_2", "vae", "text_encoder"):
        (folder / part / "config.json").unlink()
    with pytest.raises(ModelInvalid) as caught:
        require_sound(profile, folder)
    assert "transformer/config.json is missing; restore it" in str(caught.value)
    assert str(caught.value).endswith("(and 1 more)")


def test_models_are_described_with_what_is_on_this_machine(
    profile: ModelProfile, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "nothing"))
    *a14b, tiny = describe_models()
    assert tiny.is_installed
    assert {(status.is_installed, status.path) for status in a14b} == {(False, None)}
    assert 10**6 < tiny.size_bytes < 12 * 2**20
    given = describe_model(profile, str(folder))
    assert (given.is_installed, given.path) == (True, folder)
    tiny = describe_models("tiny", model_path=str(folder))[-1]
    assert (tiny.is_installed, tiny.path) == (False, folder)  # of another shape than the profile
    (folder / "vae/config.json").unlink()
    damaged = describe_model(profile, str(folder))
    assert (damaged.is_installed, len(damaged.findings)) == (False, 1)


def test_a_distilled_pair_is_looked_at_with_the_model(
    profile: ModelProfile, folder: Path, tmp_path: Path
) -> None:
    def findings(source: str) -> list[tuple[str, str, str]]:
        pair = Distilled(source=source, high="high.safetensors", low="low.safetensors")
        status = describe_model(dataclasses.replace(profile, distilled=pair))
        return [(f.severity, f.file, f.problem) for f in status.findings]

    absent = "is not on this machine"
    assert findings("Nobody/Pair") == [
        ("warning", f"Nobody/Pair/{side}.safetensors", absent) for side in ("high", "low")
    ]
    make_pair(tmp_path, 1).high.rename(tmp_path / "high.safetensors")
    low = f"{tmp_path}/low.safetensors"
    assert findings(str(tmp_path)) == [("error", low, "is missing")]
    Path(low).write_bytes(b"torn")
    assert [severity for severity, file, _ in findings(str(tmp_path)) if file == low] == ["error"]


def test_looking_at_models_imports_no_torch() -> None:
    code = "import sys, vidmill.engines.folder as f; f.describe_models()"
    code += "; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
