"""What every engine promises, asked of each entry of `ENGINES`."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders import make_spec
from tests.tiny_random import PROFILE_FILE, shared_tiny_random
from tests.watches import RecordingWatch
from vidmill.domain.clip import ClipSpec, Size
from vidmill.domain.errors import JobCancelled, SpecUnsupported
from vidmill.domain.job import Phase
from vidmill.domain.ports import Engine, Frames
from vidmill.engines import ENGINES
from vidmill.plugins import load_plugin
from vidmill.profiles import load_profile


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    return shared_tiny_random(tmp_path_factory, worker_id)


def open_wan(folder: Path) -> Engine:
    profile = load_profile(str(folder / PROFILE_FILE))
    engine: Engine = load_plugin(ENGINES, "wan")(profile, str(folder), device="cpu", threads=1)
    return engine


OPENERS: dict[str, Callable[[Path], Engine]] = {"wan": open_wan}


def test_no_engine_escapes_the_contract() -> None:
    assert set(OPENERS) == set(ENGINES)


@pytest.fixture(scope="module", params=sorted(ENGINES))
def open_engine(request: pytest.FixtureRequest, model_folder: Path) -> Callable[[], Engine]:
    return lambda: OPENERS[request.param](model_folder)


@pytest.fixture(scope="module")
def engine(open_engine: Callable[[], Engine]) -> Iterator[Engine]:
    engine = open_engine()
    engine.load()
    yield engine
    engine.close()


def spec_of(**changes: Any) -> ClipSpec:
    return make_spec(**{"profile": "tiny-random", "num_frames": 5, "steps": 3} | changes)


def generate(engine: Engine, spec: ClipSpec, watch: RecordingWatch | None = None) -> Frames:
    return engine.generate(
        spec,
        allocate=lambda shape: np.zeros(shape, np.uint8),
        watch=watch or RecordingWatch(),
    )


@pytest.mark.parametrize("num_frames", [1, 5, 13])
def test_frames_have_the_asked_number_and_size(engine: Engine, num_frames: int) -> None:
    frames = generate(engine, spec_of(num_frames=num_frames))
    assert frames.shape == (num_frames, 48, 80, 3)
    assert frames.dtype == np.dtype(np.uint8)
    assert frames.std() > 0


def test_frames_lie_in_the_memory_given_asked_for_once(engine: Engine) -> None:
    given: list[Frames] = []

    def allocate(shape: tuple[int, int, int, int]) -> Frames:
        given.append(np.zeros(shape, np.uint8))
        return given[-1]

    frames = engine.generate(spec_of(), allocate=allocate, watch=RecordingWatch())
    assert [memory.shape for memory in given] == [(5, 48, 80, 3)]
    assert np.shares_memory(frames, given[0])


def test_same_seed_same_bytes_even_after_other_clips(engine: Engine) -> None:
    first = generate(engine, spec_of())
    generate(engine, spec_of(prompt="another", num_frames=9, steps=2, flow_shift=5.0, seed=8))
    assert np.array_equal(first, generate(engine, spec_of()))


@pytest.mark.parametrize("phase", [Phase.DENOISING, Phase.DECODING])
def test_same_seed_same_bytes_after_a_cancelled_clip(engine: Engine, phase: Phase) -> None:
    first = generate(engine, spec_of())
    with pytest.raises(JobCancelled):
        generate(engine, spec_of(seed=8), RecordingWatch(cancel_in=phase, cancel_at_report=2))
    assert np.array_equal(first, generate(engine, spec_of()))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 8},
        {"prompt": "a green star"},
        {"negative_prompt": "blur"},
        {"steps": 2},
        {"guidance_scale": 5.0},
        {"guidance_scale_2": 5.0},
        {"flow_shift": 8.0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_the_spec_says_changes_the_frames(engine: Engine, change: dict[str, Any]) -> None:
    assert not np.array_equal(generate(engine, spec_of()), generate(engine, spec_of(**change)))


def test_progress_passes_through_the_phases_and_moves_at_every_step(engine: Engine) -> None:
    watch = RecordingWatch()
    generate(engine, spec_of(steps=4), watch)
    phases = list(dict.fromkeys(phase for phase, _, _ in watch.reports))
    assert phases == [Phase.ENCODING_TEXT, Phase.DENOISING, Phase.DECODING]
    for phase in phases:
        shares = [done / total for _, done, total in watch.of(phase)]
        assert shares == sorted(shares)
        assert shares[-1] == 1
    steps = {done / total for _, done, total in watch.of(Phase.DENOISING)}
    assert {0.25, 0.5, 0.75, 1.0} <= steps


def test_a_cancel_is_obeyed_before_the_next_step_is_reported(engine: Engine) -> None:
    watch = RecordingWatch(cancel_in=Phase.DENOISING, cancel_at_report=2)
    with pytest.raises(JobCancelled):
        generate(engine, spec_of(steps=4), watch)
    assert len(watch.of(Phase.DENOISING)) == 2
    assert watch.of(Phase.DECODING) == []


def test_a_clip_cancelled_before_it_begins_does_nothing(engine: Engine) -> None:
    watch = RecordingWatch()
    watch.is_cancel_requested = True
    with pytest.raises(JobCancelled):
        generate(engine, spec_of(), watch)
    assert watch.reports == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"num_frames": 6}, "6 frames"),
        ({"native": Size(72, 40)}, "72x40"),
        ({"steps": 0}, "0 steps"),
        ({"profile": "other"}, "other"),
    ],
)
def test_a_spec_it_cannot_make_is_refused_with_the_reason(
    engine: Engine, change: dict[str, Any], reason: str
) -> None:
    with pytest.raises(SpecUnsupported, match=reason):
        generate(engine, spec_of(**change))


def test_identity_names_the_model_and_its_weights(engine: Engine) -> None:
    identity = engine.identity()
    assert identity["name"] == "tiny-random"
    assert {"revision", "sha256"} <= identity.keys()


def test_warm_counts_every_shape(engine: Engine) -> None:
    shapes: list[tuple[int, int]] = []
    engine.warm(lambda done, total: shapes.append((done, total)))
    assert [done for done, _ in shapes] == list(range(1, shapes[-1][1] + 1))


def test_a_closed_engine_gives_way_to_a_new_one_that_draws_the_same(
    engine: Engine, open_engine: Callable[[], Engine]
) -> None:
    second = open_engine()
    second.load()
    second.load()  # idempotent
    frames = generate(second, spec_of())
    second.close()
    assert np.array_equal(frames, generate(engine, spec_of()))
