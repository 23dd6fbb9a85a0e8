"""Reads what a safetensors file says it holds, without its bytes and without torch.

The format (https://github.com/huggingface/safetensors#format): 8 bytes little-endian header length,
a JSON header `name -> {dtype, shape, data_offsets}`, then the data those offsets count from.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

_HEADER_MAX_BYTES = 100 * 2**20  # the format's own limit

_ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip

_LENGTH_BYTES = 8

Shape = tuple[int, ...]


def read_shapes(path: Path) -> dict[str, Shape]:
    """Return the shape of every tensor in the file at *path*.

    Raises:
        ValueError: The file is cut short, overlong or not safetensors; the message says which.
        OSError: It cannot be read.
    """
    size_bytes = path.stat().st_size
    with path.open("rb") as stream:
        header_bytes = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        if _LENGTH_BYTES + header_bytes > size_bytes or header_bytes > _HEADER_MAX_BYTES:
            raise ValueError(f"is cut short or not safetensors ({size_bytes} bytes)")
        header = stream.read(header_bytes)
    tensors = _parse(header)
    data_bytes = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].start):
        if tensor.size_bytes != tensor.end - tensor.start:
            raise ValueError(f"gives {name} {tensor.end - tensor.start} bytes, not its shape's")
        if tensor.start != data_bytes:
            raise ValueError(f"leaves a hole or an overlap before {name}")
        data_bytes = tensor.end
    if (promised := _LENGTH_BYTES + header_bytes + data_bytes) != size_bytes:
        raise ValueError(f"has {size_bytes} bytes where its header promises {promised}")
    return {name: tensor.shape for name, tensor in tensors.items()}


class _Tensor(NamedTuple):
    shape: Shape
    size_bytes: int
    start: int
    end: int


def _parse(header: bytes) -> dict[str, _Tensor]:
    try:
        entries = json.loads(header)
        entries.pop("__metadata__", None)
        return {name: _tensor(entry) for name, entry in entries.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"has a malformed header ({error!r})") from error


def _tensor(entry: Mapping[str, Any]) -> _Tensor:
    shape = tuple(int(side) for side in entry["shape"])
    start, end = entry["data_offsets"]
    return _Tensor(shape, math.prod(shape) * _ITEM_BYTES[entry["dtype"]], int(start), int(end))
