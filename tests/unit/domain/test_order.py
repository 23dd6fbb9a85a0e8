"""Every limit, on both of its sides."""

from dataclasses import replace
from typing import Any

import pytest

from vidmill.domain.clip import SEED_MAX, ClipSpec, Resolution, Size
from vidmill.domain.job import Lane
from vidmill.domain.order import (
    PRIORITIES,
    Limits,
    Order,
    offered_resolutions,
    problems,
    shape,
    to_spec,
)
from vidmill.domain.profile import ModelProfile
from vidmill.profiles import load_profile

TINY = load_profile("tiny")
WAN = load_profile("a14b-quality")
LIMITS = Limits(
    prompt_max_chars=200,
    negative_prompt_max_chars=500,
    duration_min_s=3.0,
    duration_max_s=10.0,
    resolutions=(Resolution.P480, Resolution.P720),
    frame_rates=(16, 24, 30),
    default_frame_rate=24,
)


def codes(order: Order, profile: ModelProfile = TINY, limits: Limits = LIMITS) -> list[str]:
    """Return `field code` of each problem."""
    return [f"{p.pointer.removeprefix('#/')} {p.code}" for p in problems(order, limits, profile)]


def spec_of(order: Order) -> ClipSpec:
    return to_spec(order, shape(order, TINY), limits=LIMITS, profile=TINY, seed=99)


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "a" * 200},
        {"prompt": "汉" * 200},
        {"prompt": "👩‍🚀"},
        {"prompt": "two\nlines"},
        {"negative_prompt": "b" * 500},
        {"duration_s": 3.0},
        {"duration_s": 10.0},
        {"duration_s": 3.1},
        {"duration_s": 0.1 * 57},
        {"resolution": "480p"},
        {"fps": 16},
        {"seed": 0},
        {"seed": SEED_MAX},
        {"language": "ja"},
        {"priority": "low"},
        {"client_reference": "r" * 200},
        {"metadata": {"k" * 64: "v" * 512}},
        {"metadata": {str(n): "" for n in range(16)}},
        {"style": None, "enable_physics": False},
    ],
)
def test_what_lies_on_a_limit_is_allowed(change: dict[str, Any]) -> None:
    assert codes(Order(**{"prompt": "a red ball", **change})) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"prompt": ""}, ["prompt blank"]),
        ({"prompt": "\u200b\u00a0"}, ["prompt blank"]),
        ({"prompt": "a" * 201}, ["prompt max_length"]),
        ({"prompt": "a\x00b"}, ["prompt forbidden_character"]),
        ({"prompt": "a\x1b[31m"}, ["prompt forbidden_character"]),
        ({"prompt": "a\ud800"}, ["prompt forbidden_character"]),
        ({"negative_prompt": "b" * 501}, ["negative_prompt max_length"]),
        ({"negative_prompt": "\x07"}, ["negative_prompt forbidden_character"]),
        ({"duration_s": 2.9}, ["duration min"]),
        ({"duration_s": 10.1}, ["duration max"]),
        ({"duration_s": 3.05}, ["duration step"]),
        ({"duration_s": float("nan")}, ["duration min"]),
        ({"duration_s": float("inf")}, ["duration max"]),
        ({"duration_s": -1.0}, ["duration min"]),
        ({"resolution": "4K"}, ["resolution not_offered"]),
        ({"resolution": "1080p"}, ["resolution not_offered"]),
        ({"fps": 23}, ["frame_rate not_offered"]),
        ({"fps": 0}, ["frame_rate not_offered"]),
        ({"style": "cinematic"}, ["style unsupported"]),
        ({"camera": "orbit"}, ["camera unsupported"]),
        ({"enable_physics": True}, ["enable_physics unsupported"]),
        ({"language": "fr"}, ["language not_offered"]),
        ({"seed": -1}, ["seed min"]),
        ({"seed": SEED_MAX + 1}, ["seed max"]),
        ({"priority": "urgent"}, ["priority not_offered"]),
        ({"client_reference": "r" * 201}, ["client_reference max_length"]),
        ({"metadata": {str(n): "" for n in range(17)}}, ["metadata max_items"]),
        ({"metadata": {"k" * 65: ""}}, ["metadata max_length"]),
        ({"metadata": {"a/b~c": "v" * 513}}, ["metadata/a~1b~0c max_length"]),
    ],
)
def test_what_lies_beyond_a_limit_is_named(change: dict[str, Any], expected: Any) -> None:
    assert codes(Order(**{"prompt": "a red ball", **change})) == expected


def test_all_problems_are_named_at_once() -> None:
    order = Order(prompt="", duration_s=2.9, seed=-1, resolution="4K")

    assert codes(order) == ["prompt blank", "resolution not_offered", "duration min", "seed min"]


def test_a_problem_states_the_limit_and_the_remedy() -> None:
    (problem,) = problems(Order(prompt="a" * 201), LIMITS, TINY)

    assert problem.limit == 200
    assert "201" in problem.message
    assert "shorten" in problem.message


def test_a_model_with_prompt_rules_takes_style_camera_and_physics() -> None:
    order = Order(prompt="x", style="cinematic", camera="orbit", enable_physics=True)
    assert codes(order, WAN) == []
    assert codes(Order(prompt="x", style="baroque"), WAN) == ["style not_offered"]
    assert codes(Order(prompt="x", camera="barrel_roll"), WAN) == ["camera not_offered"]


def test_only_sizes_both_operator_and_model_offer_are_on_offer() -> None:
    limits = Limits(**{**vars(LIMITS), "resolutions": (Resolution.P480,)})

    assert offered_resolutions(limits, TINY) == (Resolution.P480,)
    assert codes(Order(prompt="x", resolution="720p"), limits=limits) == ["resolution not_offered"]


def test_spec_holds_all_that_determines_the_pixels() -> None:
    order = Order(prompt="x", resolution="480p", duration_s=3.0, seed=5)

    spec = spec_of(order)

    assert (spec.size, spec.native, spec.num_frames) == (Size(832, 480), Size(80, 48), 13)
    assert (spec.seed, spec.fps, spec.steps) == (5, 24, TINY.steps)


def test_a_standing_clip_is_drawn_standing() -> None:
    spec = spec_of(Order(prompt="x", resolution="720p", aspect_ratio="9:16"))
    assert (spec.size, spec.native) == (Size(720, 1280), Size(48, 80))


def test_a_shape_the_model_lacks_is_named() -> None:
    plain = replace(TINY, shapes={})
    assert codes(Order(prompt="x", aspect_ratio="1:1"), plain) == ["aspect_ratio not_offered"]


def test_a_missing_seed_is_filled_in_and_a_zero_is_not() -> None:
    assert spec_of(Order(prompt="x")).seed == 99
    assert spec_of(Order(prompt="x", seed=0)).seed == 0


def test_a_model_without_guidance_refuses_a_negative_prompt_it_would_not_read() -> None:
    fast = load_profile("a14b-fast")
    assert codes(Order(prompt="x", negative_prompt="rain"), fast) == ["negative_prompt unsupported"]
    assert codes(Order(prompt="x"), fast) == []
    assert shape(Order(prompt="x"), fast).negative_prompt == ""


def test_the_models_negative_prompt_is_added_unless_the_caller_opts_out() -> None:
    with_default = shape(Order(prompt="x", negative_prompt="rain"), WAN)
    without = shape(
        Order(prompt="x", negative_prompt="rain", use_default_negative_prompt=False), WAN
    )

    assert with_default.negative_prompt == f"rain, {WAN.default_negative_prompt}"
    assert without.negative_prompt == "rain"


def test_priorities_are_lanes() -> None:
    assert PRIORITIES == {"high": Lane.VIP, "normal": Lane.STANDARD, "low": Lane.BATCH}
