"""The plan's arithmetic, on A14B as published."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidmill.domain.clip import Size
from vidmill.domain.job import Phase
from vidmill.domain.layout import GPU_COUNTS, MemoryPlan, next_smaller, plan_memory
from vidmill.domain.profile import Layout, ModelProfile
from vidmill.engines.anatomy import anatomy_of, largest_size
from vidmill.profiles import load_profile

GB = 10**9
QUALITY = load_profile("a14b-quality")
HD = Size(1280, 720)


def plan(
    profile: ModelProfile = QUALITY, *, gb: float, gpus: int = 1, num_frames: int = 81
) -> MemoryPlan:
    return plan_memory(
        anatomy_of(profile, None),
        profile.layouts,
        size=HD,
        num_frames=num_frames,
        device_bytes=int(gb * GB),
        gpus=gpus,
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a14b-quality", ["resident", "parked", "fp8", "offload"]),
        ("a14b-fast", ["resident", "parked", "fp8", "offload"]),
        ("a14b-balanced", ["resident", "resident", "fp8", "offload"]),  # 8-bit in any layout
    ],
)
def test_each_common_card_gets_the_best_layout_that_fits(name: str, expected: list[str]) -> None:
    needs = [plan(load_profile(name), gb=gb).chosen for gb in (141, 80, 48, 24)]
    assert [need and need.layout for need in needs] == expected


def test_a_card_too_small_for_anything_gets_none() -> None:
    assert plan(gb=12).chosen is None


def test_parts_weigh_what_their_parameters_do() -> None:
    resident, parked, fp8, offload = plan(gb=80).needs
    assert resident.resting == {
        "experts": 2 * 14_288 * 10**6 * 2,
        "text_encoder": 5_681 * 10**6 * 2,
        "vae": 127 * 10**6 * 4,
    }
    assert (resident.host_bytes, parked.host_bytes) == (0, resident.resting["text_encoder"])
    assert fp8.resting["experts"] / resident.resting["experts"] == pytest.approx(0.255, abs=0.005)
    assert (offload.resting["experts"], offload.host_bytes) == (
        0,
        resident.resting["experts"] + resident.resting["text_encoder"],
    )


def test_in_fp8_the_idle_expert_is_beside_neither_text_encoder_nor_decode() -> None:
    fp8 = plan(gb=80).needs[2]
    at_rest = sum(fp8.resting.values())
    anatomy = anatomy_of(QUALITY, None)
    assert fp8.peaks[Phase.ENCODING_TEXT] == at_rest + anatomy.text_bytes
    assert fp8.peaks[Phase.DECODING] == at_rest + anatomy.decoding_bytes(HD)
    assert fp8.peak_bytes == fp8.peaks[Phase.DENOISING]
    # A card sold as 40 GB has 42.9, as nvidia-smi counts; 24 GB ones stay with offload.
    assert plan(gb=42.9).chosen == fp8


def test_every_gpu_has_a_process_that_holds_and_reads_all_weights_of_its_own() -> None:
    weights = (2 * 14_288 + 5_681) * 2 * 10**6
    one, four = (plan(gb=48, gpus=gpus).needs for gpus in (1, 4))
    assert [need.loading_bytes for need in one] == [0, 5_681 * 2 * 10**6, weights, weights]
    for alone, shared in zip(one, four, strict=True):
        assert shared.host_bytes == 4 * alone.host_bytes
        assert shared.loading_bytes == 4 * alone.loading_bytes
    rounded = plan(load_profile("a14b-balanced"), gb=141).needs[0]
    assert (rounded.host_bytes, rounded.loading_bytes) == (0, 2 * 14_288 * 2 * 10**6)


def test_a_layout_down_the_list_never_peaks_higher() -> None:
    peaks = [need.peak_bytes for need in plan(gb=80).needs]
    assert peaks == sorted(peaks, reverse=True)


def test_working_sets_are_those_that_were_counted() -> None:
    """By bench/working_set.py: 8.61 and 16.80 GB denoising, 17.97 GB decoding."""
    anatomy = anatomy_of(QUALITY, None)
    assert anatomy.tokens(HD, 81) == 75_600
    assert anatomy.denoising_bytes(HD, 81, gpus=1) == pytest.approx(8.61 * GB, rel=0.01)
    assert anatomy.denoising_bytes(HD, 161, gpus=1) == pytest.approx(16.80 * GB, rel=0.01)
    assert anatomy.decoding_bytes(HD) == pytest.approx(17.97 * GB, rel=0.01)


def test_what_a_step_cache_keeps_is_planned_for_and_divided_like_the_forward() -> None:
    balanced = anatomy_of(load_profile("a14b-balanced"), None)
    exact = anatomy_of(QUALITY, None)
    hidden = 75_600 * 5120 * 2
    more = [
        balanced.denoising_bytes(HD, 81, gpus=n) - exact.denoising_bytes(HD, 81, gpus=n)
        for n in (1, 2)
    ]
    assert more == pytest.approx([6 * hidden, 3 * hidden], abs=1)


def test_more_gpus_share_the_forward_but_neither_weights_nor_decode() -> None:
    plans = {gpus: plan(gb=80, gpus=gpus).needs[0] for gpus in GPU_COUNTS}
    denoising = [need.peaks[Phase.DENOISING] for need in plans.values()]
    assert denoising == sorted(denoising, reverse=True)
    assert len({need.peaks[Phase.DECODING] for need in plans.values()}) == 1
    assert len({tuple(need.resting.items()) for need in plans.values()}) == 1


@given(gb=st.floats(1, 300), more=st.floats(0, 100))
def test_more_memory_never_gives_a_later_layout(gb: float, more: float) -> None:
    small, large = plan(gb=gb).chosen, plan(gb=gb + more).chosen
    if small is not None:
        assert large is not None
        assert QUALITY.layouts.index(large.layout) <= QUALITY.layouts.index(small.layout)


def test_the_next_smaller_layout_is_the_next_that_is_allowed() -> None:
    assert next_smaller(Layout.RESIDENT, tuple(Layout)) is Layout.PARKED
    assert next_smaller(Layout.RESIDENT, (Layout.RESIDENT, Layout.OFFLOAD)) is Layout.OFFLOAD
    assert next_smaller(Layout.OFFLOAD, tuple(Layout)) is None


def test_the_largest_size_is_planned_for() -> None:
    size = largest_size(QUALITY)
    assert size.width_px * size.height_px == HD.width_px * HD.height_px
