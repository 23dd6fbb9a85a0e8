"""What an uploaded LoRA file is, found without torch: nothing in it is ever executed."""

import hashlib
from pathlib import Path

import numpy as np

from vidmill.domain.lora_files import FileFacts
from vidmill.engines.safetensors_header import Tensor, read_header

_HEADER_MAX_BYTES = 4 * 2**20
"""All linear layers of A14B need 0.2 MB."""

_CHUNK_BYTES = 4 * 2**20

_EXPONENTS = {"F32": ("<u4", 0x7F800000), "F16": ("<u2", 0x7C00), "BF16": ("<u2", 0x7F80)}
"""Bits that are all set in NaN and infinity, and only there (IEEE 754 §3.4); bfloat16 likewise."""


def read_facts(path: Path) -> FileFacts:
    """Return what the file at *path* is.

    Raises:
        ValueError: It is not safetensors; the message ends a sentence that begins with its name.
        OSError: It cannot be read.
    """
    header = read_header(path, max_bytes=_HEADER_MAX_BYTES)
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    not_finite = next(
        (
            name
            for name, tensor in header.tensors.items()
            if not _is_finite(path, tensor, header.data_start)
        ),
        None,
    )
    return FileFacts(
        size_bytes=path.stat().st_size,
        sha256=sha256,
        shapes={name: tensor.shape for name, tensor in header.tensors.items()},
        dtypes={name: tensor.dtype for name, tensor in header.tensors.items()},
        metadata=header.metadata,
        not_finite=not_finite,
    )


def _is_finite(path: Path, tensor: Tensor, data_start: int) -> bool:
    """Whether no number is NaN or infinite; of other types than LoRAs have, nobody asks."""
    if tensor.dtype not in _EXPONENTS:
        return True
    word, exponent = _EXPONENTS[tensor.dtype]
    with path.open("rb") as stream:
        stream.seek(data_start + tensor.start)
        left = tensor.size_bytes
        while left:
            chunk = np.frombuffer(stream.read(min(left, _CHUNK_BYTES)), word)
            left -= chunk.nbytes
            if bool((np.bitwise_and(chunk, exponent) == exponent).any()):
                return False
    return True
