"""A clip is given up: the server is told where it can be, and waited for where not."""

import pytest

from tests.orders import open_videos, order
from tests.twins import VideosTwin
from tests.waiting import wait_until
from tests.watches import CancelledOnceOrdered, RecordingWatch
from vidmill.domain.errors import JobCancelled
from vidmill.domain.job import Phase
from vidmill.domain.ports import Engine
from vidmill.domain.remote import Cancel


def cancelled(engine: Engine, phase: Phase = Phase.DENOISING) -> None:
    with pytest.raises(JobCancelled):
        order(engine, RecordingWatch(cancel_in=phase, cancel_at_report=2))


def test_a_server_that_can_stop_is_told_to_and_is_free_at_once(sglang: VideosTwin) -> None:
    engine = open_videos(sglang, cancel=Cancel.NOW)
    cancelled(engine)
    assert sglang.calls[-1] == ("DELETE", "/v1/videos/" + sglang.calls[-1][1].rpartition("/")[2])
    assert not engine.is_busy()


def test_a_server_that_cannot_stop_keeps_the_slot_busy_until_it_is_done(
    sglang: VideosTwin,
) -> None:
    engine = open_videos(sglang)
    cancelled(engine)
    assert engine.is_busy()
    (left,) = sglang.orders.values()
    assert wait_until(lambda: not engine.is_busy(), timeout_s=10.0)
    assert left.state == "done"
    assert sglang.orders == {}


def test_a_restart_frees_the_slot(sglang: VideosTwin) -> None:
    engine = open_videos(sglang)
    cancelled(engine)
    sglang.restart()
    assert wait_until(lambda: not engine.is_busy(), timeout_s=10.0)


def test_no_clip_keeps_a_slot_busy_for_ever(sglang: VideosTwin) -> None:
    sglang.queued_looks = 10**9
    engine = open_videos(sglang, busy_limit_s=0.02)

    with pytest.raises(JobCancelled):
        order(engine, CancelledOnceOrdered())
    assert engine.is_busy()
    assert wait_until(lambda: not engine.is_busy(), timeout_s=10.0)


def test_a_clip_that_waits_is_stopped_where_the_server_can_do_that_alone(
    vllm: VideosTwin,
) -> None:
    vllm.queued_looks = 10**9
    engine = open_videos(vllm, cancel=Cancel.QUEUED)

    with pytest.raises(JobCancelled):
        order(engine, CancelledOnceOrdered())
    assert vllm.orders == {}
    assert not engine.is_busy()
