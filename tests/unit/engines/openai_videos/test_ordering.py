"""What the server is asked for, and what is told while it works."""

from typing import Any

import pytest

from tests.orders import open_videos, order
from tests.twins import VideosTwin
from tests.watches import RecordingWatch
from vidmill.domain.job import Phase
from vidmill.domain.ports import Engine
from vidmill.domain.remote import Progress


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
    asked = asked_of(sglang, open_videos(sglang), negative_prompt="blur")
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
    form = asked_of(vllm, open_videos(vllm))
    said = asked_of(sglang, open_videos(sglang))
    assert form == {name: str(value) for name, value in said.items()}


def test_a_profile_may_leave_fields_out_add_some_and_name_the_model(sglang: VideosTwin) -> None:
    model = "Wan2.2-T2V-A14B"
    omit = frozenset({"num_frames", "size"})
    engine = open_videos(sglang, omit=omit, extra={"cache": False}, model=model)
    fields = asked_of(sglang, engine)
    assert not omit & fields.keys()
    assert (fields["model"], fields["cache"]) == (model, False)


@pytest.mark.parametrize(
    ("duration_s", "num_frames", "asked"), [(1.0, 5, "1"), (0.9, 5, "1"), (1.1, 9, "2")]
)
def test_where_no_number_of_frames_is_sent_the_seconds_hold_them_all(
    sglang: VideosTwin, duration_s: float, num_frames: int, asked: str
) -> None:
    engine = open_videos(sglang, omit=frozenset({"num_frames"}))
    sglang.num_frames = num_frames
    changes = {"duration_s": duration_s, "num_frames": num_frames}
    assert asked_of(sglang, engine, **changes)["seconds"] == asked


def test_what_a_tenth_of_a_second_holds_too_much_is_dropped(sglang: VideosTwin) -> None:
    engine = open_videos(sglang, omit=frozenset({"num_frames"}))
    sglang.num_frames, sglang.fps = 30, 30
    fields: dict[str, Any] = {"native_fps": 30, "num_frames": 29, "duration_s": 0.9}
    assert asked_of(sglang, engine, **fields)["seconds"] == "1"
    assert len(order(engine, **fields)) == 29


def test_seconds_are_whole_where_frames_say_what_is_meant(sglang: VideosTwin) -> None:
    assert asked_of(sglang, open_videos(sglang), duration_s=0.9)["seconds"] == "1"


def test_a_percentage_is_passed_on_and_never_a_hundred_before_the_end(sglang: VideosTwin) -> None:
    watch = RecordingWatch()
    order(open_videos(sglang), watch, steps=4)
    assert [done for _, done, _ in watch.of(Phase.DENOISING)] == [25, 50, 75, 99, 100]


def test_without_a_percentage_none_is_invented(vllm: VideosTwin) -> None:
    watch = RecordingWatch()
    order(open_videos(vllm, progress=Progress.STATE), watch, steps=4)
    assert {done for _, done, _ in watch.of(Phase.DENOISING)} == {0, 100}
