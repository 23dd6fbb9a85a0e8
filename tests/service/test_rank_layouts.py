"""Two processes draw a clip in every layout. One group at a time: torch has one for a process."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders import make_spec
from tests.groups import Group
from tests.tiny_random import PROFILE_FILE, shared_tiny_random
from tests.watches import RecordingWatch
from tests.workers import are_gone
from vidmill.domain.clip import ClipSpec
from vidmill.domain.errors import JobCancelled, ModelInvalid
from vidmill.domain.job import Phase
from vidmill.domain.ports import Engine, Frames
from vidmill.domain.profile import Layout
from vidmill.engines.wan import WanEngine
from vidmill.profiles import load_profile

pytestmark = [pytest.mark.sqlite, pytest.mark.xdist_group("ranks")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    return shared_tiny_random(tmp_path_factory, worker_id)


def spec_of(**changes: Any) -> ClipSpec:
    return make_spec(**{"profile": "tiny-random", "num_frames": 5, "steps": 3} | changes)


def draw(engine: Engine, spec: ClipSpec, watch: RecordingWatch | None = None) -> Frames:
    return engine.generate(
        spec, allocate=lambda shape: np.zeros(shape, np.uint8), watch=watch or RecordingWatch()
    )


FASTER = 'gemm = "fp8"\ncompile = "eager"\n[step_cache]\nkind = "first_block"\nthreshold = 0.1\n'


@pytest.mark.parametrize(
    ("layouts", "changes"),
    [
        pytest.param(("fp8", "fp8"), FASTER, id="all at once"),
        pytest.param(("offload", "offload"), FASTER, id="offload", marks=pytest.mark.long),
        pytest.param(("resident", "offload"), "", id="two layouts", marks=pytest.mark.long),
    ],
)
def test_ranks_draw_in_every_layout_what_one_process_draws_and_after_a_cancel_again(
    tmp_path: Path, folder: Path, layouts: tuple[str, str], changes: str
) -> None:
    profile = _with_layouts(tmp_path, folder, changes)
    alone = WanEngine(
        load_profile(str(profile)), str(folder), device="cpu", threads=1, layout=layouts[0]
    )
    group = Group(profile, folder, devices=("cpu", "cpu"), layouts=layouts)
    alone.load()
    group.engine.load()
    try:
        for num_frames in (5, 9):  # shares of one size, and of two
            frames = draw(group.engine, spec_of(num_frames=num_frames))
            wanted = draw(alone, spec_of(num_frames=num_frames))
            assert np.abs(frames.astype(int) - wanted).max() <= 1
        with pytest.raises(JobCancelled):
            draw(group.engine, spec_of(steps=8), RecordingWatch(cancel_in=Phase.DENOISING))
        assert np.array_equal(frames, draw(group.engine, spec_of(num_frames=9)))
    finally:
        group.engine.close()


def test_ranks_of_which_one_alone_rounds_its_weights_are_refused(
    tmp_path: Path, folder: Path
) -> None:
    profile = _with_layouts(tmp_path, folder)
    group = Group(profile, folder, devices=("cpu", "cpu"), layouts=("resident", "fp8"))
    with pytest.raises(ModelInvalid, match=r"rank 1 of 2 .* layout fp8 .* VIDMILL_LAYOUT"):
        group.engine.load()
    assert are_gone({group.mate})


def _with_layouts(tmp_path: Path, folder: Path, changes: str = "") -> Path:
    names = ", ".join(f'"{layout}"' for layout in Layout)
    file = tmp_path / PROFILE_FILE
    file.write_text(f'base = "{folder / PROFILE_FILE}"\nlayouts = [{names}]\n{changes}')
    return file
