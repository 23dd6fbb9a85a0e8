"""vLLM-Omni and SGLang as they were seen to behave, and what the engine makes of it."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from starlette.responses import JSONResponse, Response
from structlog.testing import capture_logs

from tests.orders import open_remote, order, remote_profile
from tests.twins import KEY, VideosTwin, serving
from tests.waiting import wait_until
from tests.watches import CancelledOnceOrdered, RecordingWatch
from vidmill.domain.clip import Size
from vidmill.domain.errors import (
    BadOutput,
    EngineFailed,
    JobCancelled,
    ModelInvalid,
    SpecUnsupported,
)
from vidmill.domain.job import Phase
from vidmill.domain.ports import Engine
from vidmill.domain.remote import Cancel, Progress
from vidmill.engines.openai_videos import OpenAIVideosEngine


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


def open_engine(twin: VideosTwin, **rules: Any) -> Engine:
    dialect = "form" if twin.is_form else "json"
    return open_remote("openai_videos", f"{twin.url}/v1", dialect=dialect, **rules)


def asked_of(twin: VideosTwin, engine: Engine, **changes: Any) -> dict[str, Any]:
    """Return what the server was asked for; the record is deleted when the clip is here."""
    seen: list[dict[str, Any]] = []

    class Spy(RecordingWatch):
        def report(self, phase: Phase, done: int, total: int) -> None:
            super().report(phase, done, total)
            seen.extend(each.asked for each in twin.orders.values())

    order(engine, Spy(), **changes)
    return seen[0]


def test_everything_is_said_and_nothing_left_to_the_servers_defaults(sglang: VideosTwin) -> None:
    asked = asked_of(sglang, open_engine(sglang), negative_prompt="blur")
    assert asked == {
        "prompt": "a red ball bouncing on a blue background",
        "negative_prompt": "blur",
        "size": "80x48",
        "width": 80,
        "height": 48,
        "num_frames": 5,
        "fps": 4,
        "seconds": "1",
        "num_inference_steps": 3,
        "guidance_scale": 3.0,
        "guidance_scale_2": 2.0,
        "flow_shift": 3.0,
        "seed": 7,
    }


def test_a_form_says_the_same_as_json(vllm: VideosTwin, sglang: VideosTwin) -> None:
    form = asked_of(vllm, open_engine(vllm))
    said = asked_of(sglang, open_engine(sglang))
    assert form == {name: str(value) for name, value in said.items()}


def test_a_profile_may_leave_fields_out_add_some_and_name_the_model(sglang: VideosTwin) -> None:
    model = "Wan2.2-T2V-A14B"
    omit = frozenset({"num_frames", "size"})
    engine = open_engine(sglang, omit=omit, extra={"cache": False}, model=model)
    fields = asked_of(sglang, engine)
    assert not omit & fields.keys()
    assert (fields["model"], fields["cache"]) == (model, False)


@pytest.mark.parametrize(
    ("duration_s", "num_frames", "asked"), [(1.0, 5, "1"), (0.9, 5, "1"), (1.1, 9, "2")]
)
def test_where_no_number_of_frames_is_sent_the_seconds_hold_them_all(
    sglang: VideosTwin, duration_s: float, num_frames: int, asked: str
) -> None:
    engine = open_engine(sglang, omit=frozenset({"num_frames"}))
    sglang.num_frames = num_frames
    changes = {"duration_s": duration_s, "num_frames": num_frames}
    assert asked_of(sglang, engine, **changes)["seconds"] == asked


def test_what_a_tenth_of_a_second_holds_too_much_is_dropped(sglang: VideosTwin) -> None:
    engine = open_engine(sglang, omit=frozenset({"num_frames"}))
    sglang.num_frames, sglang.fps = 30, 30
    fields: dict[str, Any] = {"native_fps": 30, "num_frames": 29, "duration_s": 0.9}
    assert asked_of(sglang, engine, **fields)["seconds"] == "1"
    assert len(order(engine, **fields)) == 29


def test_seconds_are_whole_where_frames_say_what_is_meant(sglang: VideosTwin) -> None:
    assert asked_of(sglang, open_engine(sglang), duration_s=0.9)["seconds"] == "1"


def test_a_percentage_is_passed_on_and_never_a_hundred_before_the_end(sglang: VideosTwin) -> None:
    watch = RecordingWatch()
    order(open_engine(sglang), watch, steps=4)
    assert [done for _, done, _ in watch.of(Phase.DENOISING)] == [25, 50, 75, 99, 100]


def test_without_a_percentage_none_is_invented(vllm: VideosTwin) -> None:
    watch = RecordingWatch()
    order(open_engine(vllm, progress=Progress.STATE), watch, steps=4)
    assert {done for _, done, _ in watch.of(Phase.DENOISING)} == {0, 100}


def test_the_record_is_deleted_once_the_clip_is_here(sglang: VideosTwin) -> None:
    order(open_engine(sglang))
    assert sglang.orders == {}


def test_a_clip_that_is_not_ready_for_download_at_once_is_asked_for_again(
    sglang: VideosTwin,
) -> None:
    sglang.content_lags = 2
    assert order(open_engine(sglang)).std() > 0


def test_a_restart_that_lost_the_clip_is_a_retryable_failure(vllm: VideosTwin) -> None:
    class Restart(RecordingWatch):
        def report(self, phase: Phase, done: int, total: int) -> None:
            super().report(phase, done, total)
            if phase is Phase.DENOISING:
                vllm.restart()

    with pytest.raises(EngineFailed, match="does not know the clip any more: it was restarted"):
        order(open_engine(vllm), Restart())


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"code": "generation_failed", "message": "CUDA error"}, EngineFailed),
        ({"code": 400, "message": "too many frames"}, SpecUnsupported),
        ({"code": "moderation_blocked", "message": "not this"}, SpecUnsupported),
    ],
)
def test_a_failed_clip_says_why_and_whether_another_try_helps(
    vllm: VideosTwin, error: dict[str, Any], expected: type[Exception]
) -> None:
    vllm.fails = error
    with pytest.raises(expected, match=error["message"]):
        order(open_engine(vllm))


def test_a_server_that_lists_no_models_is_known_by_its_videos(sglang: VideosTwin) -> None:
    sglang.troubles.append(Response("", 404))
    assert order(open_engine(sglang)).std() > 0


def test_an_order_that_finds_no_route_does_not_speak_against_the_order(sglang: VideosTwin) -> None:
    engine = open_engine(sglang)
    sglang.troubles.append(JSONResponse({"detail": "no model wan here"}, 404))
    with pytest.raises(EngineFailed, match="no model wan here"):
        order(engine)


def test_a_refused_order_is_permanent_and_quotes_no_values(sglang: VideosTwin) -> None:
    engine = open_remote("openai_videos", f"{sglang.url}/v1", dialect="form")
    with pytest.raises(SpecUnsupported, match=r"body\.prompt: Field required") as caught:
        order(engine)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "trouble",
    [
        Response("try later", 429, headers={"retry-after": "0"}),
        Response("<html>bad gateway</html>", 502),
        JSONResponse({"detail": "starting"}, 503),
    ],
    ids=["429", "502", "503"],
)
def test_trouble_on_the_way_is_borne(sglang: VideosTwin, trouble: Response) -> None:
    engine = open_engine(sglang)

    class Trouble(RecordingWatch):
        def report(self, phase: Phase, done: int, total: int) -> None:
            super().report(phase, done, total)
            if phase is Phase.DENOISING and done < 100:
                sglang.troubles.append(trouble)

    assert order(engine, Trouble()).std() > 0


def test_a_server_that_has_no_time_is_asked_again(sglang: VideosTwin) -> None:
    engine = open_engine(sglang)
    sglang.troubles += [Response("", 429), Response("", 429)]
    assert order(engine).std() > 0
    assert [method for method, _ in sglang.calls].count("POST") == 3


def test_an_order_of_unknown_fate_is_not_placed_twice(sglang: VideosTwin) -> None:
    engine = open_engine(sglang)
    sglang.troubles.append(Response("", 502))
    with pytest.raises(EngineFailed, match="may have taken the order"):
        order(engine)
    assert [method for method, _ in sglang.calls].count("POST") == 1


def test_the_log_says_when_a_server_goes_silent_and_when_it_is_back_without_its_words(
    sglang: VideosTwin,
) -> None:
    engine = open_engine(sglang)

    class Trouble(RecordingWatch):
        def report(self, phase: Phase, done: int, total: int) -> None:
            super().report(phase, done, total)
            if phase is Phase.DENOISING and done == 50:
                sglang.troubles += [JSONResponse({"detail": "a secret prompt"}, 503)] * 3

    with capture_logs() as said:
        order(engine, Trouble(), steps=4)
    events = [entry["event"] for entry in said]
    assert events == ["remote_clip_ordered", "remote_gives_no_answer", "remote_answers_again"]
    host = sglang.url.removeprefix("http://")
    assert (said[0]["host"], said[0]["name"]) == (host, sglang.calls[-1][1].rpartition("/")[2])
    assert said[1]["reason"] == f"{host} answered 503"
    assert "secret" not in str(said)


def test_patience_ends(sglang: VideosTwin) -> None:
    engine = open_engine(sglang, patience_s=0.05)
    sglang.troubles += [Response("", 429)] * 200
    with pytest.raises(EngineFailed, match=r"answered 429, for over 0\.05 s"):
        order(engine)


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
        order(open_engine(sglang))
    assert sglang.orders == {}


def test_a_profile_may_allow_frames_too_many_and_too_few(sglang: VideosTwin) -> None:
    engine = open_engine(sglang, frames_over=1, frames_short=1)
    exact = order(engine)
    sglang.num_frames = 6
    assert np.array_equal(order(engine), exact)
    sglang.num_frames = 4
    short = order(engine)
    assert np.array_equal(short[:4], exact[:4])
    assert np.array_equal(short[4], exact[3])


def cancelled(engine: Engine, phase: Phase = Phase.DENOISING) -> None:
    with pytest.raises(JobCancelled):
        order(engine, RecordingWatch(cancel_in=phase, cancel_at_report=2))


def test_a_server_that_can_stop_is_told_to_and_is_free_at_once(sglang: VideosTwin) -> None:
    engine = open_engine(sglang, cancel=Cancel.NOW)
    cancelled(engine)
    assert sglang.calls[-1] == ("DELETE", "/v1/videos/" + sglang.calls[-1][1].rpartition("/")[2])
    assert not engine.is_busy()


def test_a_server_that_cannot_stop_keeps_the_slot_busy_until_it_is_done(
    sglang: VideosTwin,
) -> None:
    engine = open_engine(sglang)
    cancelled(engine)
    assert engine.is_busy()
    (left,) = sglang.orders.values()
    assert wait_until(lambda: not engine.is_busy(), timeout_s=10.0)
    assert left.state == "done"
    assert sglang.orders == {}


def test_a_restart_frees_the_slot(sglang: VideosTwin) -> None:
    engine = open_engine(sglang)
    cancelled(engine)
    sglang.restart()
    assert wait_until(lambda: not engine.is_busy(), timeout_s=10.0)


def test_no_clip_keeps_a_slot_busy_for_ever(sglang: VideosTwin) -> None:
    sglang.queued_looks = 10**9
    engine = open_engine(sglang, busy_limit_s=0.02)

    with pytest.raises(JobCancelled):
        order(engine, CancelledOnceOrdered())
    assert engine.is_busy()
    assert wait_until(lambda: not engine.is_busy(), timeout_s=10.0)


def test_a_clip_that_waits_is_stopped_where_the_server_can_do_that_alone(
    vllm: VideosTwin,
) -> None:
    vllm.queued_looks = 10**9
    engine = open_engine(vllm, cancel=Cancel.QUEUED)

    with pytest.raises(JobCancelled):
        order(engine, CancelledOnceOrdered())
    assert vllm.orders == {}
    assert not engine.is_busy()


opened = partial(open_remote, "openai_videos")


@pytest.mark.parametrize(
    ("make", "expected", "reason"),
    [
        (
            lambda url: opened(url, key="wrong"),
            EngineFailed,
            "refuses the key",
        ),
        (lambda _url: open_remote("openai_videos", ""), ModelInvalid, "VIDMILL_REMOTE_URL"),
        (
            lambda _url: open_remote("openai_videos", "gpu7:8000"),
            ModelInvalid,
            "VIDMILL_REMOTE_URL",
        ),
        (
            lambda _url: opened("http://127.0.0.1:9/v1"),
            EngineFailed,
            "127.0.0.1:9 cannot be reached: ConnectError; start the server",
        ),
        (
            lambda url: opened(url.removesuffix("/v1")),
            EngineFailed,
            "has nothing there: .*ends with /v1",
        ),
        (
            lambda url: opened(url, dialect="xml"),
            ModelInvalid,
            "'xml': choose one of form, json",
        ),
        (
            lambda url: opened(url, model="Wan9"),
            EngineFailed,
            "serves Wan2.2-T2V-A14B and not 'Wan9'",
        ),
    ],
)
def test_a_server_that_cannot_be_used_is_known_at_the_start(
    sglang: VideosTwin, make: Callable[[str], Engine], expected: type[Exception], reason: str
) -> None:
    with pytest.raises(expected, match=reason):
        make(f"{sglang.url}/v1")


def test_no_message_holds_the_key(sglang: VideosTwin) -> None:
    engine = open_engine(sglang)
    sglang.fails = {"message": f"the key {KEY} is not entitled"}
    with pytest.raises(EngineFailed, match=r"the key \*\*\* is not entitled"):
        order(engine)


def test_a_profile_without_a_server_is_refused() -> None:
    profile = remote_profile("openai_videos")
    with pytest.raises(ModelInvalid, match=r"\[remote\]"):
        OpenAIVideosEngine(type(profile)(**{**vars(profile), "remote": None}))


def test_identity_says_that_nobody_here_saw_the_weights(sglang: VideosTwin) -> None:
    identity = open_engine(sglang).identity()
    assert (identity["sha256"], identity["served"]) == ("remote", "Wan2.2-T2V-A14B")


def test_a_worker_with_a_remote_engine_loads_no_torch() -> None:
    code = (
        "import sys, vidmill.worker.render_child, vidmill.engines.openai_videos,"
        " vidmill.engines.dashscope; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
