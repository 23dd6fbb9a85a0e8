"""Text embeddings that were computed before, least recently used ones dropped first."""

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor

_CAPACITY_BYTES = 256 * 2**20  # 64 prompts of A14B (512 x 4096 bf16 = 4 MB each)


class EmbeddingCache:
    """Remembers embeddings by text. The negative prompt, in every job, is thus encoded once."""

    def __init__(
        self, encode: Callable[[str], Tensor], *, capacity_bytes: int = _CAPACITY_BYTES
    ) -> None:
        self._encode = encode
        self._capacity_bytes = capacity_bytes
        self._held: OrderedDict[str, Tensor] = OrderedDict()
        self._size_bytes = 0

    def get(self, text: str) -> Tensor:
        """Return the embedding of *text*, encoding it if it is not held."""
        if text in self._held:
            self._held.move_to_end(text)
            return self._held[text]
        embedding = self._encode(text)
        self._held[text] = embedding
        self._size_bytes += embedding.nbytes
        while self._size_bytes > self._capacity_bytes and len(self._held) > 1:
            self._size_bytes -= self._held.popitem(last=False)[1].nbytes
        return embedding
