"""Clip specs, results and prompt text."""

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import make_result, make_spec
from vidmill.domain.clip import (
    ClipResult,
    ClipSpec,
    Resolution,
    Size,
    forbidden_characters,
    normalise_text,
)
from vidmill.domain.lora import LoraUse

OTHER: dict[str, Any] = {
    "prompt": "another",
    "negative_prompt": "blur",
    "profile": "a14b-quality",
    "resolution": Resolution.P720,
    "size": Size(1280, 720),
    "native": Size(832, 480),
    "duration_s": 10.0,
    "fps": 30,
    "native_fps": 16,
    "num_frames": 41,
    "steps": 40,
    "guidance_scale": 4.0,
    "guidance_scale_2": 3.5,
    "flow_shift": 12.0,
    "seed": 8,
    "lora": LoraUse(name="acme", high="a" * 64, low="b" * 64, strength=0.8),
}


def test_spec_survives_json() -> None:
    spec = make_spec(prompt="一个红色的球 ボール")
    assert ClipSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_spec_in_json_shares_nothing_with_the_spec() -> None:
    spec = make_spec()
    spec.to_json()["size"]["width_px"] = 1
    assert spec == make_spec()


def test_result_survives_json() -> None:
    result = make_result(model={"name": "tiny"}, timings_s={"denoising": 1.5})
    assert ClipResult.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_equal_specs_have_equal_cache_keys() -> None:
    assert make_spec().cache_key() == make_spec().cache_key()


@pytest.mark.parametrize("name", [field.name for field in fields(ClipSpec)])
def test_every_field_of_a_spec_changes_its_cache_key(name: str) -> None:
    changed = replace(make_spec(), **{name: OTHER[name]})
    assert changed.cache_key() != make_spec().cache_key()


@pytest.mark.parametrize(
    ("duration_s", "fps", "frames"), [(3.0, 24, 72), (3.1, 24, 74), (10.0, 30, 300), (3.3, 16, 53)]
)
def test_delivered_frames_are_exact_to_half_a_frame(
    duration_s: float, fps: int, frames: int
) -> None:
    assert make_spec(duration_s=duration_s, fps=fps).delivered_frames == frames


def test_size_is_written_as_people_write_it() -> None:
    assert str(Size(832, 480)) == "832x480"


@given(st.text())
def test_normalised_text_is_stable_and_trimmed(text: str) -> None:
    once = normalise_text(text)
    assert normalise_text(once) == once
    assert once == once.strip()


def test_composed_and_decomposed_text_are_one() -> None:
    assert normalise_text(" cafe\u0301 ") == normalise_text("caf\u00e9") == "caf\u00e9"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a red ball 🎈 一个", []),
        ("a red ball\r\n\tbouncing", []),
        ("nul \x00 and bell \x07\x07", ["U+0000", "U+0007"]),
        ("half a pair \ud83c", ["U+D83C"]),
        ("\x9f", ["U+009F"]),
    ],
)
def test_control_and_surrogate_characters_are_named(text: str, found: list[str]) -> None:
    assert forbidden_characters(text) == found


def test_seed_that_was_drawn_is_no_part_of_the_cache_key() -> None:
    first, second = make_spec(seed=1), make_spec(seed=2)
    assert first.cache_key(is_seeded=False) == second.cache_key(is_seeded=False)
    assert first.cache_key(is_seeded=False) != first.cache_key()
