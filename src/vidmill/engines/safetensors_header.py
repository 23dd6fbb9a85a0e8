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


class Tensor(NamedTuple):
    """Where a tensor lies: *start* and *end* count from the end of the header."""

    dtype: str
    shape: Shape
    start: int
    end: int

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * _ITEM_BYTES[self.dtype]


class Header(NamedTuple):
    """What a file says it holds; its data begin at *data_start*."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    data_start: int


def read_shapes(path: Path) -> dict[str, Shape]:
    """Return the shape of every tensor in the file at *path*; raises as `read_header`."""
    return {name: tensor.shape for name, tensor in read_header(path).tensors.items()}


def read_header(path: Path, *, max_bytes: int = _HEADER_MAX_BYTES) -> Header:
    """Return what the file at *path* says it holds; a header longer than *max_bytes* is refused.

    Raises:
        ValueError: The file is cut short, overlong or not safetensors; the message says which.
        OSError: It cannot be read.
    """
    size_bytes = path.stat().st_size
    with path.open("rb") as stream:
        header_bytes = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        if header_bytes > max_bytes and _looks_pickled(path):
            raise ValueError("is a pickle (.pt, .bin or .ckpt), not safetensors")
        if _LENGTH_BYTES + header_bytes > size_bytes or header_bytes > max_bytes:
            raise ValueError(f"is cut short or not safetensors ({size_bytes} bytes)")
        header = stream.read(header_bytes)
    tensors, metadata = _parse(header)
    data_bytes = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].start):
        if tensor.size_bytes != tensor.end - tensor.start:
            raise ValueError(f"gives {name} {tensor.end - tensor.start} bytes, not its shape's")
        if tensor.start != data_bytes:
            raise ValueError(f"leaves a hole or an overlap before {name}")
        data_bytes = tensor.end
    if (promised := _LENGTH_BYTES + header_bytes + data_bytes) != size_bytes:
        raise ValueError(f"has {size_bytes} bytes where its header promises {promised}")
    return Header(tensors, metadata, _LENGTH_BYTES + header_bytes)


def _looks_pickled(path: Path) -> bool:
    """Whether the file begins as those of `torch.save` do, of today (ZIP) or before."""
    with path.open("rb") as stream:
        return stream.read(4).startswith((b"PK\x03\x04", *(b"\x80%c" % n for n in range(2, 6))))


def _parse(header: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        entries = json.loads(header)
        metadata = {str(k): str(v) for k, v in (entries.pop("__metadata__", None) or {}).items()}
        return {name: _tensor(entry) for name, entry in entries.items()}, metadata
    except (
        *(AttributeError, KeyError, TypeError, ValueError),
        *(OverflowError, RecursionError),  # a side of Infinity; brackets in brackets
    ) as error:
        raise ValueError(f"has a malformed header ({error!r})") from error


def _tensor(entry: Mapping[str, Any]) -> Tensor:
    shape = tuple(int(side) for side in entry["shape"])
    if min(shape, default=0) < 0:
        raise ValueError(f"a side of {min(shape)}")
    start, end = entry["data_offsets"]
    tensor = Tensor(entry["dtype"], shape, int(start), int(end))
    tensor.size_bytes  # noqa: B018  a dtype that nobody knows is found here
    return tensor
