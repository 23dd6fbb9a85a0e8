"""Servers that fail, refuse, restart or fall silent, and what the engine makes of it."""

from typing import Any

import pytest
from starlette.responses import JSONResponse, Response
from structlog.testing import capture_logs

from tests.orders import open_remote, open_videos, order
from tests.twins import KEY, VideosTwin
from tests.watches import RecordingWatch
from vidmill.domain.errors import EngineFailed, SpecUnsupported
from vidmill.domain.job import Phase


def test_a_restart_that_lost_the_clip_is_a_retryable_failure(vllm: VideosTwin) -> None:
    class Restart(RecordingWatch):
        def report(self, phase: Phase, done: int, total: int) -> None:
            super().report(phase, done, total)
            if phase is Phase.DENOISING:
                vllm.restart()

    with pytest.raises(EngineFailed, match="does not know the clip any more: it was restarted"):
        order(open_videos(vllm), Restart())


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
        order(open_videos(vllm))


def test_an_order_that_finds_no_route_does_not_speak_against_the_order(sglang: VideosTwin) -> None:
    engine = open_videos(sglang)
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
    engine = open_videos(sglang)

    class Trouble(RecordingWatch):
        def report(self, phase: Phase, done: int, total: int) -> None:
            super().report(phase, done, total)
            if phase is Phase.DENOISING and done < 100:
                sglang.troubles.append(trouble)

    assert order(engine, Trouble()).std() > 0


def test_a_server_that_has_no_time_is_asked_again(sglang: VideosTwin) -> None:
    engine = open_videos(sglang)
    sglang.troubles += [Response("", 429), Response("", 429)]
    assert order(engine).std() > 0
    assert [method for method, _ in sglang.calls].count("POST") == 3


def test_an_order_of_unknown_fate_is_not_placed_twice(sglang: VideosTwin) -> None:
    engine = open_videos(sglang)
    sglang.troubles.append(Response("", 502))
    with pytest.raises(EngineFailed, match="may have taken the order"):
        order(engine)
    assert [method for method, _ in sglang.calls].count("POST") == 1


def test_the_log_says_when_a_server_goes_silent_and_when_it_is_back_without_its_words(
    sglang: VideosTwin,
) -> None:
    engine = open_videos(sglang)

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
    engine = open_videos(sglang, patience_s=0.05)
    sglang.troubles += [Response("", 429)] * 200
    with pytest.raises(EngineFailed, match=r"answered 429, for over 0\.05 s"):
        order(engine)


def test_no_message_holds_the_key(sglang: VideosTwin) -> None:
    engine = open_videos(sglang)
    sglang.fails = {"message": f"the key {KEY} is not entitled"}
    with pytest.raises(EngineFailed, match=r"the key \*\*\* is not entitled"):
        order(engine)
