"""Which weights are these? A hash over a model folder, cheap enough for every start. No torch."""

import hashlib
from pathlib import Path

_HASH_ALL_BELOW_BYTES = 10**9
"""Above, reading every byte would delay a start (69 GB of A14B at 2 GB/s: 35 s at best)."""


def fingerprint(
    folder: Path, *, hash_all_below_bytes: int = _HASH_ALL_BELOW_BYTES
) -> dict[str, str]:
    """Return `{"sha256": hex}` over the names and bytes of all weight files below *folder*.

    From *hash_all_below_bytes* of weights on the key is `sha256_headers`, and the hash is over
    names, sizes and safetensors headers only: it tells models apart, but vouches for no bytes.
    """
    files = sorted(folder.rglob("*.safetensors"))
    is_large = sum(file.stat().st_size for file in files) >= hash_all_below_bytes
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(folder).as_posix()}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            if is_large:
                digest.update(stream.read(int.from_bytes(stream.read(8), "little")))
            else:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return {"sha256_headers" if is_large else "sha256": digest.hexdigest()}
