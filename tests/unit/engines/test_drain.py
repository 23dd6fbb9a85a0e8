from collections.abc import Callable

import numpy as np
import pytest
import torch

from vidmill.domain.errors import BadOutput
from vidmill.domain.ports import Frames
from vidmill.engines.drain import Drain


def drained(
    *chunks: torch.Tensor, num_frames: int, patch_size: int | None = None
) -> tuple[Frames, list[tuple[int, int]]]:
    frames = np.zeros((num_frames, 2, 4, 3), np.uint8)
    progress: list[tuple[int, int]] = []
    drain = Drain(frames, patch_size, on_chunk=lambda done, total: progress.append((done, total)))
    for chunk in chunks:
        assert drain(None, None, chunk).numel() == 0
    drain.finish()
    return frames, progress


def chunk(value: float, num_frames: int = 1) -> torch.Tensor:
    return torch.full((1, 3, num_frames, 2, 4), value)


def test_chunks_become_frames_in_order_and_progress() -> None:
    frames, progress = drained(chunk(-1.0), chunk(1.0, num_frames=4), num_frames=5)
    assert [int(frame[0, 0, 0]) for frame in frames] == [0, 255, 255, 255, 255]
    assert progress == [(1, 5), (5, 5)]


@pytest.mark.parametrize(("value", "pixel"), [(-9.0, 0), (0.0, 128), (0.5, 191), (9.0, 255)])
def test_values_are_clamped_and_rounded(value: float, pixel: int) -> None:
    frames, _ = drained(chunk(value), num_frames=1)
    assert frames.min() == frames.max() == pixel


def test_colours_and_places_are_kept() -> None:
    red_at_top_left = chunk(-1.0)
    red_at_top_left[0, 0, 0, 0, 0] = 1.0
    frames, _ = drained(red_at_top_left, num_frames=1)
    assert frames[0, 0, 0].tolist() == [255, 0, 0]
    assert frames.sum() == 255


def test_patches_are_unfolded() -> None:
    folded = torch.full((1, 12, 1, 1, 2), -1.0)
    folded[:, :4] = 1.0  # the four places of each patch, first colour
    frames, _ = drained(folded, num_frames=1, patch_size=2)
    assert frames[..., 0].min() == 255
    assert frames[..., 1:].max() == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_one_bad_number_fails_the_clip(bad: float) -> None:
    spoilt = chunk(0.0)
    spoilt[0, 1, 0, 1, 3] = bad
    with pytest.raises(BadOutput, match=r"frame 1 .*NaN"):
        drained(chunk(0.0), spoilt, num_frames=2)


def test_too_few_too_many_and_wrongly_sized_frames_fail_the_clip() -> None:
    with pytest.raises(BadOutput, match="1 frames, wanted 2"):
        drained(chunk(0.0), num_frames=2)
    with pytest.raises(BadOutput, match="after 1 frames"):
        drained(chunk(0.0), chunk(0.0), num_frames=1)
    with pytest.raises(BadOutput, match=r"\(1, 2, 5\)"):
        drained(torch.zeros(1, 3, 1, 2, 5), num_frames=1)


class SlowRoad:
    """Carries nothing before it is waited for; keeps what was waited for."""

    def __init__(self) -> None:
        self.arrived: list[tuple[int, ...]] = []

    def __call__(self, values: torch.Tensor) -> Callable[[], torch.Tensor]:
        def wait() -> torch.Tensor:
            self.arrived.append(tuple(values.shape))
            return values

        return wait


def test_a_chunk_lands_while_the_next_is_drawn_and_the_last_at_the_end() -> None:
    frames, road = np.zeros((9, 2, 4, 3), np.uint8), SlowRoad()
    progress: list[int] = []
    drain = Drain(frames, None, on_chunk=lambda done, _: progress.append(done), carry=road)
    seen = []
    for value, num_frames in ((-1.0, 1), (1.0, 4), (0.0, 4)):
        drain(None, None, chunk(value, num_frames))
        seen.append(list(progress))
    drain.finish()
    assert seen == [[], [1], [1, 5]]
    assert progress == [1, 5, 9]
    assert [int(frame[0, 0, 0]) for frame in frames] == [0, *[255] * 4, *[128] * 4]
    assert len(road.arrived) == 6  # pixels of each chunk, and whether they are numbers


def test_a_bad_number_in_the_last_chunk_is_found_though_it_lands_late() -> None:
    frames = np.zeros((1, 2, 4, 3), np.uint8)
    drain = Drain(frames, None, on_chunk=lambda *_: None, carry=SlowRoad())
    drain(None, None, chunk(float("nan")))
    with pytest.raises(BadOutput, match="frame 0 "):
        drain.finish()
