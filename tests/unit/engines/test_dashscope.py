"""Alibaba Model Studio as it is documented, and what the engine makes of it."""

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.responses import JSONResponse

from tests.orders import open_remote, order
from tests.twins import DashScopeTwin, serving
from tests.watches import CancelledOnceOrdered, RecordingWatch
from vidmill.domain.clip import Size
from vidmill.domain.errors import (
    EngineFailed,
    JobCancelled,
    ModelInvalid,
    SpecUnsupported,
)
from vidmill.domain.job import Phase
from vidmill.domain.ports import Engine
from vidmill.domain.remote import Cancel, Progress
from vidmill.engines.dashscope import _current


@pytest.fixture(scope="module")
def server() -> Iterator[DashScopeTwin]:
    twin = DashScopeTwin()
    with serving(twin):
        yield twin


@pytest.fixture
def service(server: DashScopeTwin) -> DashScopeTwin:
    server.fails, server.num_frames, server.queued_looks = None, None, 1
    server.orders.clear()
    server.troubles.clear()
    server.calls.clear()
    return server


def open_engine(service: DashScopeTwin, **rules: Any) -> Engine:
    rules = {"progress": Progress.STATE, "cancel": Cancel.QUEUED, **rules}
    return open_remote("dashscope", f"{service.url}/api/v1", **rules)


def test_older_models_are_asked_in_pixels_and_nothing_is_added(service: DashScopeTwin) -> None:
    order(open_engine(service), negative_prompt="blur")
    assert service.last.asked == {
        "model": "wan2.6-t2v",
        "input": {
            "prompt": "a red ball bouncing on a blue background",
            "negative_prompt": "blur",
        },
        "parameters": {
            "size": "80*48",
            "duration": 1,
            "seed": 7,
            "prompt_extend": False,
            "watermark": False,
        },
    }


def test_newer_models_are_asked_in_tiers(service: DashScopeTwin) -> None:
    order(open_engine(service, dialect="current", model="wan2.7-t2v"))
    parameters = service.last.asked["parameters"]
    assert (parameters["resolution"], parameters["ratio"]) == ("480P", "16:9")
    assert "size" not in parameters


@pytest.mark.parametrize(
    ("size", "tier", "ratio"),
    [
        (Size(832, 480), "480P", "16:9"),
        (Size(480, 832), "480P", "9:16"),
        (Size(624, 624), "480P", "1:1"),
        (Size(1088, 832), "720P", "4:3"),
        (Size(832, 1088), "720P", "3:4"),
        (Size(1280, 720), "720P", "16:9"),
        (Size(1920, 1080), "1080P", "16:9"),
    ],
)
def test_a_size_has_a_tier_and_a_shape(size: Size, tier: str, ratio: str) -> None:
    assert _current(size) == {"resolution": tier, "ratio": ratio}


@pytest.mark.parametrize(
    ("num_frames", "duration_s", "durations", "bought_s"),
    [
        (13, 3.0, (), 3),
        (13, 2.6, (), 3),
        (13, 3.0, (5, 10), 5),
        (41, 10.0, (5, 10), 10),
    ],
)
def test_the_shortest_length_that_holds_the_clip_is_bought(
    service: DashScopeTwin,
    num_frames: int,
    duration_s: float,
    durations: tuple[int, ...],
    bought_s: int,
) -> None:
    engine = open_engine(service, durations=durations)
    frames = order(engine, num_frames=num_frames, duration_s=duration_s)
    assert service.last.asked["parameters"]["duration"] == bought_s
    assert len(frames) == num_frames


def test_a_length_that_is_not_sold_is_refused_before_it_costs_anything(
    service: DashScopeTwin,
) -> None:
    with pytest.raises(SpecUnsupported, match="sells 2 s at most, not 3 s"):
        order(open_engine(service, durations=(2,)), num_frames=13, duration_s=3.0)
    assert service.orders == {}


def test_starting_costs_nothing(service: DashScopeTwin) -> None:
    open_engine(service).warm(lambda _done, _total: None)
    assert service.orders == {}


def test_a_wrong_key_is_known_at_the_start(service: DashScopeTwin) -> None:
    with pytest.raises(EngineFailed, match=r"refuses the key \(401\): Invalid API-key provided"):
        open_engine(service, key="wrong")


@pytest.mark.parametrize("path", ["", "/v1", "/api/v1/services"])
def test_a_wrong_address_is_known_at_the_start(service: DashScopeTwin, path: str) -> None:
    with pytest.raises(EngineFailed, match=r"has nothing there: .*ends with /api/v1"):
        open_remote("dashscope", service.url + path)


@pytest.mark.parametrize("rules", [{"dialect": "json"}, {"model": ""}])
def test_a_profile_that_cannot_work_is_refused(
    service: DashScopeTwin, rules: dict[str, str]
) -> None:
    with pytest.raises(ModelInvalid, match=next(iter(rules))):
        open_engine(service, **rules)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("DataInspectionFailed", SpecUnsupported),
        ("InvalidParameter.DataInspection", SpecUnsupported),
        ("InternalError.Algo", EngineFailed),
        ("Arrearage", EngineFailed),
    ],
)
def test_a_failure_says_why_and_whether_another_try_helps(
    service: DashScopeTwin, code: str, expected: type[Exception]
) -> None:
    engine = open_engine(service)
    service.troubles.append(JSONResponse({"code": code, "message": "the reason"}, 400))
    with pytest.raises(expected, match=f"{code}: the reason"):
        order(engine)
    service.fails = {"code": code, "message": "the reason"}
    with pytest.raises(expected, match=f"{code}: the reason"):
        order(engine)


@pytest.mark.parametrize("status", [429, 400])
def test_throttling_is_waited_out(service: DashScopeTwin, status: int) -> None:
    engine = open_engine(service)
    body = {"code": "Throttling.RateQuota", "message": "Requests rate limit exceeded"}
    service.troubles += [JSONResponse(body, status), JSONResponse(body, status)]
    assert order(engine).std() > 0
    assert len(service.orders) == 1


def test_throttling_without_an_end_is_a_retryable_failure(service: DashScopeTwin) -> None:
    engine = open_engine(service, patience_s=0.02)
    service.troubles += [JSONResponse({"code": "Throttling", "message": "no"}, 429)] * 100
    with pytest.raises(EngineFailed, match="answered 429 no"):
        order(engine)


def test_a_task_that_is_gone_is_a_retryable_failure(service: DashScopeTwin) -> None:
    class Gone(RecordingWatch):
        def report(self, phase: Phase, done: int, total: int) -> None:
            super().report(phase, done, total)
            if phase is Phase.DENOISING:
                service.restart()

    with pytest.raises(EngineFailed, match="does not know the clip any more"):
        order(open_engine(service), Gone())


def test_what_is_not_begun_is_cancelled_and_not_billed(service: DashScopeTwin) -> None:
    service.queued_looks = 10**9
    engine = open_engine(service)

    with pytest.raises(JobCancelled):
        order(engine, CancelledOnceOrdered())
    assert service.last.state == "canceled"


def test_what_is_begun_is_left_and_keeps_no_slot_busy(
    service: DashScopeTwin, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = open_engine(service)
    watch = RecordingWatch(cancel_in=Phase.DENOISING, cancel_at_report=1)
    with pytest.raises(JobCancelled):
        order(engine, watch)
    assert not any(path.endswith("/cancel") for _, path in service.calls)
    assert service.last.state == "running"
    assert not engine.is_busy()
    said = capsys.readouterr()
    assert "remote_clip_left_running" in said.out + said.err


def test_progress_is_told_by_states_alone(service: DashScopeTwin) -> None:
    watch = RecordingWatch()
    order(open_engine(service), watch)
    assert {done for _, done, _ in watch.of(Phase.DENOISING)} == {0, 100}
