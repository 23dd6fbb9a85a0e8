"""The caption world: deterministic, honest about its held-out split, fluent in three languages."""

import random
import re

import numpy as np
import pytest

from training.captions import held_out_captions, write_caption
from training.vocabulary import ATTRIBUTES, COLOURS, LANGUAGES, MOTION_NAMES, SHAPE_NAMES, Language
from training.world import (
    FRAME_COUNTS,
    HEIGHT_PX,
    WIDTH_PX,
    Scene,
    is_held_out,
    render,
    sample_scene,
    track,
    training_scenes,
)

CJK = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")
KANA = re.compile(r"[\u3040-\u30ff]")


def a_scene(*, shape: str = "circle", motion: str = "right") -> Scene:
    return Scene("red", "blue", shape, motion, seed=5)


def test_the_same_seed_draws_the_same_clip() -> None:
    first = render(sample_scene(random.Random(3)), 13)
    again = render(sample_scene(random.Random(3)), 13)
    assert np.array_equal(first, again)


@pytest.mark.parametrize("num_frames", FRAME_COUNTS)
def test_a_clip_has_the_asked_length_and_the_native_size(num_frames: int) -> None:
    clip = render(a_scene(), num_frames)
    assert clip.shape == (num_frames, HEIGHT_PX, WIDTH_PX, 3)
    assert clip.dtype == np.float32


def test_training_never_draws_a_held_out_combination() -> None:
    rng = random.Random(0)
    assert not any(is_held_out(sample_scene(rng)) for _ in range(3000))
    assert not any(is_held_out(scene) for scene in training_scenes(rng))


def test_the_evaluation_set_is_held_out_only() -> None:
    assert all(is_held_out(scene) for _, _, scene in held_out_captions(200))


def test_training_and_held_out_combinations_are_seven_to_one() -> None:
    assert len(training_scenes(random.Random(0))) == 1368


@pytest.mark.parametrize("motion", MOTION_NAMES)
@pytest.mark.parametrize("num_frames", FRAME_COUNTS)
def test_nothing_moves_faster_than_the_codec_can_draw(motion: str, num_frames: int) -> None:
    x, y, _ = track(a_scene(motion=motion), num_frames)
    fastest_px = max(np.abs(np.diff(x)).max(), np.abs(np.diff(y)).max()) * HEIGHT_PX
    assert fastest_px <= 3.6


@pytest.mark.parametrize("shape", SHAPE_NAMES)
@pytest.mark.parametrize("motion", MOTION_NAMES)
def test_the_object_never_leaves_the_picture(shape: str, motion: str) -> None:
    clip = render(a_scene(shape=shape, motion=motion), 21)
    background = np.array(COLOURS["blue"].rgb) / 255
    borders = (clip[:, 0], clip[:, -1], clip[:, :, 0], clip[:, :, -1])
    assert all(np.abs(border - background).max() < 0.02 for border in borders)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_caption_is_written_in_its_language(language: Language) -> None:
    rng = random.Random(7)
    captions = [write_caption(sample_scene(rng), rng, language=language)[0] for _ in range(50)]
    assert all(bool(CJK.search(caption)) == (language != "en") for caption in captions)
    assert all(bool(KANA.search(caption)) == (language == "ja") for caption in captions)


def test_an_english_caption_names_both_colours() -> None:
    caption, _ = write_caption(a_scene(), random.Random(1), language="en")
    assert "red" in caption
    assert "blue" in caption


def test_what_stays_unsaid_is_reported_as_none() -> None:
    caption, said = write_caption(a_scene(), random.Random(1), language="en", unsaid=1.0)
    assert dict.fromkeys(ATTRIBUTES) == said
    assert "red" not in caption


def test_evaluation_captions_are_the_same_every_time_and_take_turns() -> None:
    captions = held_out_captions(30)
    assert captions == held_out_captions(30)
    assert [language for _, language, _ in captions[:6]] == ["en", "zh", "ja"] * 2
    assert held_out_captions(60)[:30] == captions
