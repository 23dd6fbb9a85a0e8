"""What the server hands over: fetched, held against the order, and deleted there."""

from typing import Any

import numpy as np
import pytest

from tests.orders import open_videos, order
from tests.twins import VideosTwin
from vidmill.domain.clip import Size
from vidmill.domain.errors import BadOutput


def test_the_record_is_deleted_once_the_clip_is_here(sglang: VideosTwin) -> None:
    order(open_videos(sglang))
    assert sglang.orders == {}


def test_a_clip_that_is_not_ready_for_download_at_once_is_asked_for_again(
    sglang: VideosTwin,
) -> None:
    sglang.content_lags = 2
    assert order(open_videos(sglang)).std() > 0


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"num_frames": 4}, "has 4 frames, asked for were 5"),
        ({"num_frames": 6}, "more than 5 frames"),
        ({"size": Size(64, 48)}, "is 64x48, asked for was 80x48"),
        ({"fps": 24}, "runs at 24 fps, asked for was 4"),
        ({"content": b"<html>"}, "cannot be decoded"),
    ],
    ids=["short", "long", "size", "rate", "no video"],
)
def test_another_clip_than_was_ordered_is_bad_output(
    sglang: VideosTwin, fault: dict[str, Any], reason: str
) -> None:
    vars(sglang).update(fault)
    with pytest.raises(BadOutput, match=reason):
        order(open_videos(sglang))
    assert sglang.orders == {}


def test_a_profile_may_allow_frames_too_many_and_too_few(sglang: VideosTwin) -> None:
    engine = open_videos(sglang, frames_over=1, frames_short=1)
    exact = order(engine)
    sglang.num_frames = 6
    assert np.array_equal(order(engine), exact)
    sglang.num_frames = 4
    short = order(engine)
    assert np.array_equal(short[:4], exact[:4])
    assert np.array_equal(short[4], exact[3])
