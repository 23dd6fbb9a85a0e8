"""The scorer is calibrated: the truth scores 1.00, shuffled captions score at chance."""

import random

import numpy as np
import pytest

from training.evaluate import expected_of
from training.scorer import UNSEEN, measure, score
from training.vocabulary import ATTRIBUTES, COLOUR_NAMES, MOTION_NAMES, SHAPE_NAMES
from training.world import FPS, Scene, render, sample_scene

CHANCE = {
    "foreground": 1 / len(COLOUR_NAMES),
    "background": 1 / len(COLOUR_NAMES),
    "shape": 1 / len(SHAPE_NAMES),
    "motion": 1 / len(MOTION_NAMES),
}


def scenes(count: int) -> list[Scene]:
    rng = random.Random(1)
    return [sample_scene(rng, held_out=True) for _ in range(count)]


@pytest.mark.parametrize("duration_s", [3, 5, 10])
def test_rendered_clips_score_one(duration_s: int) -> None:
    drawn = scenes(40)
    clips = [render(scene, FPS * duration_s + 1) for scene in drawn]
    assert score([expected_of(scene) for scene in drawn], clips) == dict.fromkeys(ATTRIBUTES, 1.0)


def test_shuffled_captions_score_at_chance() -> None:
    drawn = scenes(120)
    clips = [render(scene, 13) for scene in drawn]
    found = score([expected_of(scene) for scene in drawn], clips[1:] + clips[:1])
    assert all(abs(found[name] - CHANCE[name]) < 0.12 for name in ATTRIBUTES)


def test_noise_and_a_cropped_border_do_not_change_the_verdict() -> None:
    drawn = scenes(40)
    noise = np.random.default_rng(0)
    clips = [render(scene, 13)[:, 1:-2] for scene in drawn]
    noisy = [(clip + noise.normal(0, 0.03, clip.shape)).astype(np.float32) for clip in clips]
    found = score([expected_of(scene) for scene in drawn], noisy)
    assert min(found.values()) >= 0.97


def test_an_empty_clip_shows_a_background_and_no_object() -> None:
    clip = np.broadcast_to(np.array([0.96, 0.96, 0.96], np.float32), (13, 48, 80, 3))
    seen = measure(clip)
    assert seen.background == "white"
    assert (seen.foreground, seen.shape, seen.motion) == (UNSEEN, UNSEEN, UNSEEN)


def test_unsaid_attributes_are_not_counted() -> None:
    scene = scenes(1)[0]
    expected = {**expected_of(scene), "motion": None}
    found = score([expected], [render(scene, 13)])
    assert np.isnan(found["motion"])
    assert found["shape"] == 1.0
