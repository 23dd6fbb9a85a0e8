from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidmill.domain.clip import Resolution, Size
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
    for size in profile.sizes.values():
        assert (size.width_px % 16, size.height_px % 16) == (0, 0)


def test_both_models_are_shipped() -> None:
    assert SHIPPED == ["tiny", "wan2.2-t2v-a14b"]


def test_tiny_is_a_toy_whose_three_seconds_are_13_frames() -> None:
    tiny = load_profile("tiny")
    assert tiny.is_toy
    assert (tiny.num_frames(3.0), tiny.num_frames(10.0)) == (13, 41)


def test_a14b_keeps_the_official_inference_configuration() -> None:
    a14b = load_profile("wan2.2-t2v-a14b")
    assert (a14b.steps, a14b.flow_shift, a14b.boundary_ratio) == (40, 12.0, 0.875)
    assert (a14b.guidance_scale, a14b.guidance_scale_2) == (4.0, 3.0)  # high noise first
    assert a14b.sizes == {Resolution.P480: Size(832, 480), Resolution.P720: Size(1280, 720)}
    assert (a14b.native_fps, a14b.num_frames(5.0), a14b.max_text_tokens) == (16, 81, 512)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(LookupError, match=r"'giant'.*tiny, wan2\.2-t2v-a14b"):
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
    a14b = load_profile("wan2.2-t2v-a14b")
    assert resolve_source(a14b) == "Wan-AI/Wan2.2-T2V-A14B-Diffusers"
    assert resolve_source(a14b, "/models/a14b") == "/models/a14b"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "local").mkdir()
    assert resolve_source(a14b, "local") == str(tmp_path / "local")
