"""The bench of the GPU: its arithmetic, its bookkeeping, and its pieces with tiny networks."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.gpu.__main__ import main
from bench.gpu.floor import ExpertShape, Rates, floor_s, forward_flops, passes, steps_by_expert
from bench.gpu.measurements import MEASUREMENTS, Bench
from bench.gpu.pieces import FIRST, LONGEST_S, Piece, all_pieces, clip_floor_s, expert_shape
from bench.gpu.report import markdown
from bench.gpu.running import DeviceLost, run_pieces
from bench.gpu.scale import rehearsed, true_profiles
from bench.gpu.session import Setup
from bench.gpu.state import Outcome, State, StateMismatch, Status
from vidmill.domain.clip import Resolution, Size
from vidmill.domain.errors import ModelInvalid
from vidmill.domain.profile import Layout

A14B = ExpertShape(num_layers=40, width=5120, ffn_width=13_824, patch=(1, 2, 2), text_tokens=512)
H200 = Rates(linear=790e12, attention=790e12)
ABOUT = {"scale": "true", "device": "NVIDIA H200", "weights": "random, seed 0"} | dict.fromkeys(
    ("torch", "diffusers", "transformers", "python"), "1"
)


def test_a_forward_at_720p_has_the_counted_tokens_and_arithmetic() -> None:
    flops = forward_flops(A14B, Size(1280, 720), 81)
    assert A14B.num_tokens(Size(1280, 720), 81) == 75_600
    assert round(flops.total / 1e12) == 6523
    assert round(flops.attention / flops.total, 2) == 0.72


@pytest.mark.parametrize(
    ("width_px", "height_px", "num_frames", "seconds"),
    [(1280, 720, 81, 661), (832, 480, 81, 170), (1280, 720, 49, 297), (1280, 720, 121, 1308)],
)
def test_the_floor_of_forty_guided_steps_is_eighty_forwards(
    width_px: int, height_px: int, num_frames: int, seconds: int
) -> None:
    profile = true_profiles()["a14b-quality"]
    size = Size(width_px, height_px)
    floor = clip_floor_s(profile, size, num_frames, steps=profile.steps, rates=H200)
    assert round(floor) == seconds


def test_four_distilled_steps_at_720p_have_a_floor_of_33_seconds() -> None:
    profile = true_profiles()["a14b-fast"]
    floor = clip_floor_s(profile, Size(1280, 720), 81, steps=profile.steps, rates=H200)
    assert round(floor) == 33


def test_faster_linear_layers_leave_attention_as_it_was() -> None:
    flops = forward_flops(A14B, Size(1280, 720), 81)
    doubled = Rates(linear=2 * H200.linear, attention=H200.attention)
    saved_s = floor_s(flops, H200) - floor_s(flops, doubled)
    assert saved_s == pytest.approx(flops.linear / H200.linear / 2)


@pytest.mark.parametrize(
    ("steps", "flow_shift", "high"),
    [(40, 3, 13), (40, 5, 17), (40, 12, 26), (4, 5, 2)],
)
def test_the_shift_decides_how_many_steps_the_high_noise_expert_takes(
    steps: int, flow_shift: float, high: int
) -> None:
    assert steps_by_expert(steps, flow_shift, 0.875) == (high, steps - high)


def test_a_step_without_guidance_is_one_forward() -> None:
    assert (passes(1.0), passes(4.0)) == (1, 2)


def test_every_profile_has_pieces_of_at_most_eight_minutes() -> None:
    pieces = all_pieces(true_profiles())
    names = [piece.name for piece in pieces]
    assert len(set(names)) == len(names)
    assert {piece.kind for piece in pieces} == set(MEASUREMENTS)
    assert {p.setup.profile for p in pieces if p.setup} == set(true_profiles())
    assert max(piece.estimate_s for piece in pieces) <= LONGEST_S


def test_half_an_hour_is_enough_for_what_comes_first_but_two_of_the_cards() -> None:
    pieces = all_pieces(true_profiles())
    first = pieces[: len(FIRST)]
    assert [piece.name for piece in first] == [*FIRST]
    assert sum(piece.estimate_s for piece in first[:-2]) <= 1800


def test_a_clip_that_would_take_too_long_is_extrapolated_from_a_few_steps() -> None:
    names = {piece.name for piece in all_pieces(true_profiles())}
    assert "step:a14b-quality-resident:720p" in names
    assert "clip:a14b-quality-resident:720p" not in names
    assert "clip:a14b-fast-resident:720p" in names


def test_what_is_timed_calls_each_expert_twice_at_least() -> None:
    for piece in all_pieces(true_profiles()):
        if piece.setup is not None and piece.kind in {"step", "clip", "fits"}:
            profile = true_profiles()[piece.setup.profile]
            shift = piece.flow_shift or profile.flow_shift
            steps = piece.steps or profile.steps
            high, low = steps_by_expert(steps, shift, profile.boundary_ratio)
            assert passes(profile.guidance_scale) * min(high, low) >= 2, piece.name


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State.open(tmp_path / "state.json", ABOUT)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    profiles = {name: rehearsed(profile) for name, profile in true_profiles().items()}
    bench = Bench(profiles, device=torch.device("cpu"), scale="rehearsal")
    yield bench
    bench.close()
    torch.set_num_threads(threads)


def piece(name: str, estimate_s: float = 1.0) -> Piece:
    return Piece(name=name, kind=name, estimate_s=estimate_s)


def test_a_second_run_measures_only_what_the_first_left(bench: Bench, state: State) -> None:
    measured: list[str] = []

    def measure(_bench: Bench, piece: Piece) -> dict[str, Any]:
        measured.append(piece.name)
        return {"seconds": 1}

    pieces, table = [piece("short"), piece("long", 500)], dict.fromkeys(("short", "long"), measure)
    left = run_pieces(pieces, bench, state, within_s=400, measurements=table)
    assert (left, measured) == (["long"], ["short"])
    again = State.open(state.path, ABOUT)
    assert run_pieces(pieces, bench, again, measurements=table) == []
    assert measured == ["short", "long"]
    assert again.outcomes["short"].values == {"seconds": 1}


def test_a_piece_that_cannot_be_or_goes_wrong_does_not_stop_the_others(
    bench: Bench, state: State
) -> None:
    def impossible(_bench: Bench, _piece: Piece) -> dict[str, Any]:
        raise ModelInvalid("no such kernel")

    def broken(_bench: Bench, _piece: Piece) -> dict[str, Any]:
        raise RuntimeError("illegal address")

    table = {"a": impossible, "b": broken, "c": lambda _bench, _piece: {}}
    run_pieces([piece("a"), piece("b"), piece("c")], bench, state, measurements=table)
    found = {name: (one.status, one.reason) for name, one in state.outcomes.items()}
    assert found == {
        "a": ("skipped", "no such kernel"),
        "b": ("failed", "RuntimeError: illegal address"),
        "c": ("done", ""),
    }


def test_a_device_that_broke_fails_no_other_piece_of_the_process(state: State) -> None:
    """There is no GPU here, so what is asked of one fails as on a broken one."""

    def broken(_bench: Bench, _piece: Piece) -> dict[str, Any]:
        raise RuntimeError("illegal address")

    lost = Bench({}, device=torch.device("cuda"), scale="true")
    table = {"a": broken, "b": lambda _bench, _piece: {}}
    with pytest.raises(DeviceLost, match="a"):
        run_pieces([piece("a"), piece("b")], lost, state, measurements=table)
    assert [*state.outcomes] == ["a"]


def test_what_failed_runs_again_when_it_is_asked_to_and_what_is_done_does_not(
    state: State,
) -> None:
    ends: tuple[Status, ...] = ("done", "failed", "skipped")
    for status in ends:
        state.begin(status, date="2026-11-21")
        state.end(status, Outcome(status=status))
        state.reopen(status)
    assert [state.is_settled(name) for name in ("done", "failed", "skipped")] == [
        True,
        False,
        False,
    ]


def test_a_piece_in_which_the_process_died_is_tried_once_more(state: State) -> None:
    state.begin("step", date="2026-11-21")
    assert not State.open(state.path, ABOUT).is_settled("step")
    state.begin("step", date="2026-11-21")
    again = State.open(state.path, ABOUT)
    assert again.is_settled("step")
    assert "step: stopped in the middle" in markdown(again)


def test_figures_of_another_device_are_not_added_to(state: State) -> None:
    state.begin("step", date="2026-11-21")
    with pytest.raises(StateMismatch, match=r"NVIDIA H200.*give another --state"):
        State.open(state.path, ABOUT | {"device": "cpu"})


STEP = {
    "native": "1280x720", "frames": 81, "steps": 4, "is_extrapolated": True, "gemm": "native",
    "forward_high_s": 9.0, "forward_low_s": 9.0, "step_s": 18.0, "decode_s": 5.0, "clip_s": 725.0,
    "linear_tflop": 1809.6, "attention_tflop": 4713.7,
}  # fmt: skip


def test_the_report_has_both_shares_of_the_floor_and_says_what_is_extrapolated(
    state: State,
) -> None:
    rates = {"matmul_bf16_tflops": 790.0, "matmul_fp8_tflops": None}
    for name, values in (("machine", rates), ("step:a14b-quality-resident:720p", STEP)):
        state.begin(name, date="2026-11-21")
        state.end(name, Outcome(status="done", values=values))
    text = markdown(state)
    assert "2026-11-21: NVIDIA H200, torch 1" in text
    assert "data sheet 73%; measured 92%" in text
    assert "725.0 (extrapolated from 4 steps)" in text
    assert "rehearsal" not in text


def test_a_rehearsal_runs_the_real_engine_and_claims_nothing(bench: Bench, tmp_path: Path) -> None:
    state = State.open(tmp_path / "state.json", ABOUT | {"scale": "rehearsal"})
    plain = Setup(profile="a14b-quality")
    small: dict[str, Any] = {"setup": plain, "resolution": Resolution.P480, "clip_s": 1.0}
    pieces = [
        Piece(name="machine", kind="machine"),
        Piece(name="match:", kind="match", steps=2, **small),
        Piece(name="step:", kind="step", steps=4, **small),
        Piece(name="lora:", kind="lora", steps=2, **small),
        Piece(name="cancel:", kind="cancel", steps=1, repeats=2, **small),
        Piece(name="load", kind="load", setup=plain),
    ]
    run_pieces(pieces, bench, state)
    assert [one.reason for one in state.outcomes.values()] == [""] * len(pieces)
    values = {name: one.values for name, one in state.outcomes.items()}
    assert values["match:"]["same_bytes"]
    assert values["step:"]["is_extrapolated"]
    assert values["lora:"]["same_bytes_without"]
    assert values["lora:"]["pairs_differ"]
    assert values["cancel:"]["same_bytes_afterwards"]
    assert values["load"]["disk_gb"] < values["load"]["loaded_gb"]
    assert "A rehearsal with tiny networks" in markdown(state)


def test_the_rehearsal_keeps_what_makes_a_profile_that_profile() -> None:
    for name, profile in true_profiles().items():
        small = rehearsed(profile)
        kept = ("name", "steps", "guidance_scale", "flow_shift", "gemm", "layouts", "step_cache")
        assert all(getattr(small, key) == getattr(profile, key) for key in kept), name
        assert expert_shape(small).width < 100


def test_layouts_are_tried_within_the_memory_of_the_card_they_are_for() -> None:
    limits = {
        piece.setup.layout: piece.setup.memory_gb
        for piece in all_pieces(true_profiles())
        if piece.kind == "fits" and piece.setup
    }
    assert limits == {Layout.PARKED: 80, Layout.FP8: 48, Layout.OFFLOAD: 24}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["report", "--state", "gone.json"], "gone.json does not exist: `run` measures"),
        (["report", "--state", "notes.json"], "notes.json is no file of results"),
        (["list", "steps:*"], "no piece is called 'steps:*': `list` shows"),
        (["run", "steps:*", "--rehearse"], "no piece is called 'steps:*': `list` shows"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.json").write_text("[]")
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith(said)
