import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidmill.domain.clip import DELIVERED_SIZES, Aspect, Resolution, Size
from vidmill.domain.profile import Layout, StepCache
from vidmill.domain.remote import Cancel, Progress
from vidmill.profiles import all_profiles, load_profile, resolve_source

SHIPPED = [profile.name for profile in all_profiles()]


@pytest.mark.parametrize("name", SHIPPED)
@given(duration_s=st.floats(0.1, 60))
def test_frames_follow_the_stride_and_just_span_the_duration(name: str, duration_s: float) -> None:
    profile = load_profile(name)
    num_frames = profile.num_frames(duration_s)
    assert num_frames % profile.frame_stride == 1
    assert (num_frames - 1) / profile.native_fps >= duration_s - 1e-5
    assert (num_frames - 1 - profile.frame_stride) / profile.native_fps < duration_s


@pytest.mark.parametrize("name", SHIPPED)
def test_each_size_is_drawable_and_every_resolution_has_one(name: str) -> None:
    profile = load_profile(name)
    assert set(profile.sizes) == set(Resolution)
    for size in profile.native_sizes:
        assert (size.width_px % 16, size.height_px % 16) == (0, 0)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shape_lies_or_stands_as_its_name_says(name: str) -> None:
    profile = load_profile(name)
    assert profile.aspects == tuple(Aspect)
    for resolution, aspect in DELIVERED_SIZES:
        native = profile.native_size(resolution, aspect)
        across, down = map(int, aspect.split(":"))
        assert native.width_px / native.height_px == pytest.approx(across / down, rel=0.1)


def test_a_profile_without_further_shapes_draws_its_own_lying_and_standing(tmp_path: Path) -> None:
    shipped = Path(load_profile.__globals__["__file__"]).with_name("tiny.toml").read_text()
    file = tmp_path / "plain.toml"
    file.write_text(re.sub(r"\[shapes.*?(?=\[parts)", "", shipped, flags=re.DOTALL))
    plain = load_profile(str(file))
    assert plain.aspects == (Aspect.WIDE, Aspect.TALL)
    assert plain.native_size(Resolution.P480, Aspect.TALL) == Size(48, 80)


def test_both_models_are_shipped_a14b_in_three_ways() -> None:
    local = [name for name in SHIPPED if load_profile(name).remote is None]
    assert local == ["a14b-balanced", "a14b-fast", "a14b-quality", "tiny"]


def test_tiny_is_a_toy_whose_three_seconds_are_13_frames() -> None:
    tiny = load_profile("tiny")
    assert tiny.is_toy
    assert (tiny.num_frames(3.0), tiny.num_frames(10.0)) == (13, 41)


def test_a14b_keeps_the_official_inference_configuration() -> None:
    a14b = load_profile("a14b-quality")
    assert (a14b.steps, a14b.flow_shift, a14b.boundary_ratio) == (40, 12.0, 0.875)
    assert (a14b.guidance_scale, a14b.guidance_scale_2) == (4.0, 3.0)  # high noise first
    assert a14b.sizes == {Resolution.P480: Size(832, 480), Resolution.P720: Size(1280, 720)}
    assert (a14b.native_fps, a14b.num_frames(5.0), a14b.max_text_tokens) == (16, 81, 512)


def test_a14b_quality_changes_nothing_of_the_arithmetic() -> None:
    quality = load_profile("a14b-quality")
    assert (quality.gemm, quality.step_cache, quality.distilled) == ("native", None, None)
    assert quality.layouts == tuple(Layout)


def test_a14b_balanced_cuts_the_arithmetic_and_keeps_the_steps() -> None:
    quality, balanced = load_profile("a14b-quality"), load_profile("a14b-balanced")
    assert (balanced.steps, balanced.flow_shift) == (quality.steps, quality.flow_shift)
    assert balanced.gemm == "fp8"
    assert balanced.step_cache == StepCache(kind="first_block", threshold=0.05)
    assert balanced.attention[-len(quality.attention) :] == quality.attention
    assert balanced.parts == quality.parts


def test_a14b_fast_runs_the_schedule_its_distilled_pair_was_trained_for() -> None:
    fast = load_profile("a14b-fast")
    assert (fast.steps, fast.flow_shift) == (4, 5.0)
    assert (fast.guidance_scale, fast.guidance_scale_2) == (1.0, 1.0)
    assert fast.distilled is not None
    assert ("high" in fast.distilled.high, "low" in fast.distilled.low) == (True, True)


def test_a_file_speaks_over_its_base_and_tables_merge(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        'base = "a14b-balanced"\nsteps = 30\n[step_cache]\nthreshold = 0.2\n'
    )
    (tmp_path / "mine2.toml").write_text('base = "mine.toml"\n[sizes]\n480p = [480, 272]\n')
    mine, mine2 = (load_profile(str(tmp_path / f"{name}.toml")) for name in ("mine", "mine2"))
    assert (mine.steps, mine.step_cache) == (30, StepCache(kind="first_block", threshold=0.2))
    assert mine.gemm == "fp8"
    assert (mine2.name, mine2.steps) == ("mine2", 30)
    assert mine2.sizes == {Resolution.P480: Size(480, 272), Resolution.P720: Size(1280, 720)}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('base = "round.toml"', "round.toml is its own base"),
        ('base = "giant"', "no model profile 'giant'"),
        ('base = "tiny"\nlayouts = ["roof"]', "'roof' is not a valid Layout"),
        ('base = "tiny"\nlayouts = []', "layouts is empty"),
        ('base = "tiny"\n[step_cache]\nkind = "mag"', "threshold"),
    ],
)
def test_what_a_derived_profile_gets_wrong_is_said(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "round.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=rf"round\.toml is not a model profile: .*{problem}"):
        load_profile(str(file))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(LookupError, match=r"'giant'.*a14b-quality, .*tiny"):
        load_profile("giant")


def test_a_profile_may_be_any_toml_file(tmp_path: Path) -> None:
    shipped = Path(load_profile.__globals__["__file__"]).with_name("tiny.toml").read_text()
    file = tmp_path / "mine.toml"
    file.write_text(shipped.replace("steps = 12", "steps = 5"))
    mine = load_profile(str(file))
    assert (mine.name, mine.steps) == ("mine", 5)


@pytest.mark.parametrize(
    ("text", "problem"),
    [("steps = ", "Invalid value"), ("steps = 12", "sizes"), ("= [", "Invalid")],
)
def test_a_broken_profile_file_is_named_with_its_fault(
    tmp_path: Path, text: str, problem: str
) -> None:
    file = tmp_path / "broken.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=rf"broken\.toml is not a model profile: .*{problem}"):
        load_profile(str(file))


def test_an_unknown_key_in_a_profile_is_refused(tmp_path: Path) -> None:
    shipped = Path(load_profile.__globals__["__file__"]).with_name("tiny.toml").read_text()
    file = tmp_path / "odd.toml"
    file.write_text("stepz = 3\n" + shipped)
    with pytest.raises(ValueError, match="stepz"):
        load_profile(str(file))


def test_the_package_source_is_a_folder_of_the_package() -> None:
    folder = Path(resolve_source(load_profile("tiny")))
    assert folder.is_absolute()
    assert folder.parts[-3:] == ("vidmill", "models", "tiny")


def test_a_hub_id_stays_one_and_an_existing_folder_overrides_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a14b = load_profile("a14b-quality")
    assert resolve_source(a14b) == "Wan-AI/Wan2.2-T2V-A14B-Diffusers"
    assert resolve_source(a14b, "/models/a14b") == "/models/a14b"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "local").mkdir()
    assert resolve_source(a14b, "local") == str(tmp_path / "local")


def test_an_example_of_each_remote_engine_is_shipped() -> None:
    remote = {name: profile for name in SHIPPED if (profile := load_profile(name)).remote}
    assert {name: profile.engine for name, profile in remote.items()} == {
        "remote-dashscope": "dashscope",
        "remote-openai": "openai_videos",
    }


def test_a_server_draws_what_the_profile_at_its_base_says() -> None:
    remote, local = load_profile("remote-openai"), load_profile("a14b-quality")
    for name in ("steps", "guidance_scale", "guidance_scale_2", "flow_shift", "native_sizes"):
        assert getattr(remote, name) == getattr(local, name)
    assert (remote.progress, remote.cancel) == (Progress.STATE, Cancel.QUEUED)
    assert (local.progress, local.cancel) == (Progress.STEP, Cancel.NOW)
