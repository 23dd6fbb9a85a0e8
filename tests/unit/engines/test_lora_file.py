"""What is found out of an uploaded file without a tensor library, and what is no such file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.loras import lora_tensors, save
from vidmill.engines.lora_file import read_facts


def written(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def test_facts_are_hash_shapes_types_and_metadata(tmp_path: Path) -> None:
    tensors = lora_tensors(1, dtype=np.float16)
    facts = read_facts(save(tmp_path / "a.safetensors", tensors, {"made_by": "me"}))

    assert facts.shapes == {name: tensor.shape for name, tensor in tensors.items()}
    assert set(facts.dtypes.values()) == {"F16"}
    assert facts.metadata == {"made_by": "me"}
    assert facts.not_finite is None
    assert len(facts.sha256) == 64


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_is_found(dtype: Any, value: float, tmp_path: Path) -> None:
    tensors = lora_tensors(1, dtype=dtype)
    name = sorted(tensors)[3]
    tensors[name][-1, -1] = value
    assert read_facts(save(tmp_path / "a.safetensors", tensors)).not_finite == name


@pytest.mark.parametrize(("bits", "is_finite"), [(0x7F80, False), (0x7FC0, False), (0x7F7F, True)])
def test_in_bfloat16_too(bits: int, is_finite: bool, tmp_path: Path) -> None:  # noqa: FBT001
    header = {"x": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    data = (0).to_bytes(2, "little") + bits.to_bytes(2, "little")
    facts = read_facts(written(tmp_path / "a.safetensors", header, data))
    assert (facts.not_finite is None) is is_finite


HOSTILE = {
    "a pickle": b"\x80\x04\x95",
    "brackets without end": b"[" * 100_000,
    "a list": [],
    "an endless side": b'{"x": {"dtype": "F32", "shape": [Infinity], "data_offsets": [0, 0]}}',
    "a side below nothing": {"x": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}},
    "an unknown type": {"x": {"dtype": "PICKLE", "shape": [], "data_offsets": [0, 0]}},
    "metadata that is a list": {"__metadata__": [1]},
    "more than there is": {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}},
}


@pytest.mark.parametrize("begins", [b"PK\x03\x04", b"\x80\x02\x8a\x0a", b"\x80\x04\x95\x12"])
def test_a_pickle_is_called_one(begins: bytes, tmp_path: Path) -> None:
    path = tmp_path / "lora.pt"
    path.write_bytes(begins + bytes(range(64)))
    with pytest.raises(ValueError, match=r"^is a pickle \(.pt, .bin or .ckpt\), not safetensors$"):
        read_facts(path)


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_no_such_file_is_refused_not_read(what: str, tmp_path: Path) -> None:
    file = written(tmp_path / "a.safetensors", HOSTILE[what], b"1234")
    with pytest.raises(ValueError, match=r"has a malformed header|promises|cut short"):
        read_facts(file)


def test_a_header_longer_than_any_lora_needs_is_not_even_read(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    with file.open("wb") as stream:
        stream.write((5 * 2**20).to_bytes(8, "little"))
        stream.truncate(6 * 2**20)
    with pytest.raises(ValueError, match="cut short or not safetensors"):
        read_facts(file)
