import torch

from vidmill.engines.embeddings import EmbeddingCache


class Encoder:
    """Counts what it encodes; an embedding of 100 bytes."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, text: str) -> torch.Tensor:
        self.texts.append(text)
        return torch.full((25,), float(len(text)))


def test_a_text_is_encoded_once() -> None:
    encoder = Encoder()
    cache = EmbeddingCache(encoder)
    assert cache.get("a") is cache.get("a")
    assert encoder.texts == ["a"]


def test_the_least_recently_used_text_makes_room() -> None:
    encoder = Encoder()
    cache = EmbeddingCache(encoder, capacity_bytes=250)
    for text in ("old", "negative", "negative", "old", "new"):
        cache.get(text)
    cache.get("old")
    cache.get("negative")
    assert encoder.texts == ["old", "negative", "new", "negative"]


def test_a_text_larger_than_the_cache_is_still_answered() -> None:
    encoder = Encoder()
    cache = EmbeddingCache(encoder, capacity_bytes=10)
    assert cache.get("huge").nbytes == 100
    assert cache.get("other").nbytes == 100
    cache.get("huge")
    assert encoder.texts == ["huge", "other", "huge"]
