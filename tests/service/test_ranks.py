"""One clip drawn by two processes. No GPU is needed: the ranks exchange over gloo on the CPU."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders import make_spec
from tests.groups import Group
from tests.loras import make_pair, use_of
from tests.tiny_random import PROFILE_FILE, shared_tiny_random, tiny_random_env
from tests.waiting import wait_until
from tests.watches import RecordingWatch
from tests.workers import Worker, are_gone, command_line, descendants, open_bench
from vidmill.domain.clip import ClipSpec, Size
from vidmill.domain.errors import (
    EngineFailed,
    EngineOutOfMemory,
    JobCancelled,
    LoraInvalid,
    ModelInvalid,
    SpecUnsupported,
)
from vidmill.domain.job import Phase
from vidmill.domain.ports import Engine, Frames, LoraFiles, Picture, Show
from vidmill.engines.ranks import RankedEngine
from vidmill.engines.wan import WanEngine
from vidmill.profiles import load_profile
from vidmill.worker.mates import Mates

pytestmark = [
    pytest.mark.sqlite,
    pytest.mark.xdist_group("ranks"),  # one group of processes for the whole module
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    return shared_tiny_random(tmp_path_factory, worker_id)


@pytest.fixture(scope="module")
def profile(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a step cache that skips none of 3 steps, and some of 8 or 12."""
    file = tmp_path_factory.mktemp("ranks") / PROFILE_FILE
    cache = '[step_cache]\nkind = "first_block"\nthreshold = 0.1\n'
    file.write_text(f'base = "{folder / PROFILE_FILE}"\n{cache}')
    return file


@pytest.fixture(scope="module")
def group(profile: Path, folder: Path) -> Iterator[Group]:
    group = Group(profile, folder, devices=("cpu", "cpu"))
    group.engine.load()
    yield group
    group.engine.close()
    assert are_gone({group.mate})


@pytest.fixture(scope="module")
def alone(profile: Path, folder: Path) -> Iterator[Engine]:
    engine = WanEngine(load_profile(str(profile)), str(folder), device="cpu", threads=1)
    engine.load()
    yield engine
    engine.close()


def spec_of(**changes: Any) -> ClipSpec:
    return make_spec(**{"profile": "tiny-random", "num_frames": 5, "steps": 3} | changes)


def draw(
    engine: Engine,
    spec: ClipSpec,
    watch: RecordingWatch | None = None,
    show: Show | None = None,
    lora: LoraFiles | None = None,
) -> Frames:
    return engine.generate(
        spec,
        allocate=lambda shape: np.zeros(shape, np.uint8),
        watch=watch or RecordingWatch(),
        show=show,
        lora=lora,
    )


@pytest.mark.parametrize(
    ("num_frames", "steps"),
    [
        pytest.param(5, 3, id="30 tokens", marks=pytest.mark.long),
        pytest.param(9, 3, id="45 tokens"),
        pytest.param(5, 12, id="steps skipped", marks=pytest.mark.long),
    ],
)
def test_two_ranks_draw_the_frames_that_one_process_draws(
    group: Group, alone: Engine, num_frames: int, steps: int
) -> None:
    spec = spec_of(num_frames=num_frames, steps=steps)
    frames = draw(group.engine, spec)
    assert np.abs(frames.astype(int) - draw(alone, spec)).max() <= 1  # a sum in another order
    assert np.array_equal(frames, draw(group.engine, spec))


def test_pictures_on_the_way_are_those_of_one_process(group: Group, alone: Engine) -> None:
    shown: dict[int, Picture] = {}
    shown_alone: dict[int, Picture] = {}
    draw(group.engine, spec_of(steps=8), show=shown.__setitem__)
    draw(alone, spec_of(steps=8), show=shown_alone.__setitem__)
    assert [*shown] == [*shown_alone] == [2, 4, 6]
    assert all(np.abs(shown[s].astype(int) - shown_alone[s]).max() <= 1 for s in shown)


def test_a_lora_changes_the_experts_of_every_rank_for_its_clip_alone(
    group: Group, alone: Engine, tmp_path: Path
) -> None:
    files = make_pair(tmp_path, seed=1)
    base, styled = spec_of(), spec_of(lora=use_of(files))
    first = draw(group.engine, base)
    frames = draw(group.engine, styled, lora=files)
    assert np.abs(frames.astype(int) - draw(alone, styled, lora=files)).max() <= 1
    assert not np.array_equal(frames, first)
    assert np.array_equal(first, draw(group.engine, base))
    with pytest.raises(LoraInvalid):
        draw(group.engine, spec_of(lora=use_of(make_pair(tmp_path, seed=2))))  # without its files
    assert group.mates.loss is None


@pytest.mark.parametrize("phase", [Phase.ENCODING_TEXT, Phase.DENOISING, Phase.DECODING])
def test_a_clip_cancelled_anywhere_leaves_nothing_behind_in_any_rank(
    group: Group, phase: Phase
) -> None:
    first = draw(group.engine, spec_of())
    watch = RecordingWatch(cancel_in=phase, cancel_at_report=1)
    with pytest.raises(JobCancelled):
        draw(group.engine, spec_of(seed=8, steps=8), watch)
    steps = {4 * step for step in range(1, 9)} & {done for _, done, _ in watch.of(Phase.DENOISING)}
    assert phase is Phase.DECODING or len(steps) <= 2  # stopped by all within four blocks
    assert np.array_equal(first, draw(group.engine, spec_of()))
    assert group.mates.loss is None


def test_what_rank_0_refuses_or_lacks_alone_costs_the_group_nothing(group: Group) -> None:
    def allocate(_shape: tuple[int, ...]) -> Frames:
        raise EngineOutOfMemory("no shared memory")

    before = group.mate
    first = draw(group.engine, spec_of())
    with pytest.raises(SpecUnsupported):
        draw(group.engine, spec_of(num_frames=6))
    with pytest.raises(EngineOutOfMemory) as caught:
        group.engine.generate(spec_of(), allocate=allocate, watch=RecordingWatch())
    assert not caught.value.is_poisonous
    assert np.array_equal(first, draw(group.engine, spec_of()))
    assert group.mate == before


def test_more_devices_than_heads_are_refused_before_anything_starts(
    folder: Path,
) -> None:
    mates = Mates(("cpu",) * 4, order={}, give_up=lambda _error: None)
    engine = RankedEngine(
        load_profile(str(folder / PROFILE_FILE)), str(folder), device="cpu", threads=1, mates=mates
    )
    with pytest.raises(ModelInvalid, match="2 attention heads, too few for 4 devices"):
        engine.load()


def test_a_killed_rank_ends_the_clip_with_one_poisonous_error(group: Group) -> None:
    """Last of those with the group: it is of no use after this."""
    killed_at: list[float] = []

    class KillingWatch(RecordingWatch):
        def report(self, phase: Phase, done: int, total: int) -> None:
            super().report(phase, done, total)
            if phase is Phase.DENOISING and done and not killed_at:
                killed_at.append(time.monotonic())
                os.kill(group.mate, signal.SIGKILL)
                # As if this were a GPU's exchange, which never ends: another thread must answer.
                assert wait_until(lambda: bool(group.given_up), timeout_s=5)

    with pytest.raises(EngineFailed, match=r"rank 1 of 2 \(cpu\) died") as caught:
        draw(group.engine, spec_of(steps=200), KillingWatch())
    assert time.monotonic() - killed_at[0] < 5
    assert caught.value.is_poisonous
    assert group.given_up == [caught.value]
    assert are_gone({group.mate})
    with pytest.raises(EngineFailed, match="died"):
        draw(group.engine, spec_of())


@pytest.mark.long
def test_a_worker_that_lost_a_rank_says_so_and_leaves_no_process_behind_when_it_is_killed(
    tmp_path: Path, folder: Path
) -> None:
    model = {k.removeprefix("VIDMILL_").lower(): v for k, v in tiny_random_env(folder).items()}
    with open_bench(tmp_path, device="cpu,cpu", preview_frames=False, **model) as bench:
        worker = Worker(bench)
        worker.wait_state("ready")
        ours = descendants(worker.process.pid)
        (mate,) = (pid for pid in ours if "mate_child" in command_line(pid))
        job = bench.submit(spec_of(steps=1000, size=Size(160, 96), duration_s=0.5), max_attempts=1)
        bench.wait_denoising(job)
        os.kill(mate, signal.SIGKILL)
        job = bench.wait_over(job)
        assert (job.error_code, job.error_message) == (
            "engine_failed",
            "rank 1 of 2 (cpu) died",
        )
        ours |= descendants(worker.process.pid)  # the next group is on its way
        worker.kill()
        assert are_gone(ours)
