"""vLLM-Omni and SGLang as they were seen to behave."""

from collections.abc import Iterator

import pytest

from tests.twins import VideosTwin, serving


@pytest.fixture(scope="module")
def sglang_server() -> Iterator[VideosTwin]:
    twin = VideosTwin()
    with serving(twin):
        yield twin


@pytest.fixture(scope="module")
def vllm_server() -> Iterator[VideosTwin]:
    twin = VideosTwin(is_form=True, has_percent=False)
    with serving(twin):
        yield twin


@pytest.fixture
def sglang(sglang_server: VideosTwin) -> VideosTwin:
    return renewed(sglang_server)


@pytest.fixture
def vllm(vllm_server: VideosTwin) -> VideosTwin:
    return renewed(vllm_server)


def renewed(twin: VideosTwin) -> VideosTwin:
    """Return *twin* without the faults of an earlier test."""
    new = VideosTwin()
    for name in ("queued_looks", "num_frames", "size", "fps", "fails", "content", "content_lags"):
        setattr(twin, name, getattr(new, name))
    for each in (twin.orders, twin.troubles, twin.calls):
        each.clear()
    return twin
