"""How each kind of piece is measured. A new kind is a function here and a line in the table."""

import dataclasses
import random
import statistics
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.gpu import machine
from bench.gpu.disk import measure_load
from bench.gpu.floor import forward_flops, passes
from bench.gpu.instruments import figure
from bench.gpu.pieces import DECODES_CANCELLED, Piece, expert_shape, high_and_low
from bench.gpu.scale import clip_spec
from bench.gpu.session import HIGH, LOW, Opened, Run, Setup, limit_memory
from bench.gpu.weights import write_pair
from vidmill.domain.clip import ClipSpec
from vidmill.domain.errors import EngineOutOfMemory
from vidmill.domain.job import Phase
from vidmill.domain.layout import plan_memory
from vidmill.domain.lora import LoraUse
from vidmill.domain.profile import ModelProfile
from vidmill.engines.anatomy import anatomy_of

_MATRIX_SIDE = {"true": 8192, "rehearsal": 64}
_ATTENTION = {"true": (32_760, 40, 128), "rehearsal": (64, 2, 16)}
"""Tokens, heads and width of a head; of 480p x 81 frames."""


class Bench:
    """The device, the profiles at the scale in use, and the one engine that is open."""

    def __init__(
        self,
        profiles: Mapping[str, ModelProfile],
        *,
        device: torch.device,
        scale: str,
        model_path: str = "",
    ) -> None:
        self.profiles = profiles
        self.device = device
        self.scale = scale
        self._model_path = model_path
        self._setup: Setup | None = None
        self._opened: Opened | None = None
        self._references: dict[tuple[str, ClipSpec], Run] = {}

    def opened(self, setup: Setup) -> Opened:
        """Return the engine of *setup*; another one that is open is closed first."""
        if self._opened is None or self._setup != setup:
            self.close()
            profile = self.profiles[setup.profile]
            self._opened = Opened(profile, setup, device=self.device, model_path=self._model_path)
            self._setup = setup
        return self._opened

    def reference(self, profile_name: str, spec: ClipSpec) -> Run:
        """Return *spec* as the eager bfloat16 path draws it with the profile's weights."""
        key = (profile_name, spec)
        if key not in self._references:
            plain = self.opened(Setup(profile=profile_name, is_plain=True))
            self._references[key] = plain.draw(spec)
        return self._references[key]

    def is_alive(self) -> bool:
        """Whether the device still computes: an illegal address ends it for the whole process."""
        try:
            settled = torch.ones(1, device=self.device).add(1).item()
        except torch.OutOfMemoryError:
            return True
        except Exception:  # noqa: BLE001  # whatever a broken device says
            return False
        return settled == 2

    def close(self) -> None:
        """Close the engine that is open, and give back its memory as far as the device can."""
        opened, self._opened, self._setup = self._opened, None, None
        if opened is not None and self.is_alive():
            opened.close()
        if self.is_alive():
            limit_memory(self.device, None)


def measure_machine(bench: Bench, _piece: Piece) -> dict[str, Any]:
    values = machine.measure(bench.device, side=_MATRIX_SIDE[bench.scale])
    tokens, heads, width = _ATTENTION[bench.scale]
    names = {name for profile in bench.profiles.values() for name in profile.attention}
    rates: dict[str, float | str] = {}
    for name in sorted(names):
        try:
            rate = machine.measure_attention(
                bench.device, name, tokens=tokens, heads=heads, head_width=width
            )
            rates[name] = figure(rate)
        except Exception as error:  # noqa: BLE001  # each back end has its own way to be absent
            rates[name] = (str(error).strip() or type(error).__name__).splitlines()[0]
    return values | {"attention_tflops": rates}


def measure_step(bench: Bench, piece: Piece) -> dict[str, Any]:
    opened, spec = _prepare(bench, piece)
    return _figures(opened, spec, opened.draw(spec))


def measure_clip(bench: Bench, piece: Piece) -> dict[str, Any]:
    opened, spec = _prepare(bench, piece)
    runs = [opened.draw(spec) for _ in range(piece.repeats)]
    return _figures(opened, spec, runs[-1]) | {
        "whole_clips_s": [figure(run.wall_s) for run in runs],
        "same_bytes": all(np.array_equal(runs[0].frames, run.frames) for run in runs),
    }


def measure_fits(bench: Bench, piece: Piece) -> dict[str, Any]:
    try:
        opened, spec = _prepare(bench, piece)
        figures = _figures(opened, spec, opened.draw(spec))
    except EngineOutOfMemory as error:
        bench.close()
        return {"fits": False, "reason": str(error)}
    return {"fits": True, "open_s": figure(opened.open_s), **figures}


def measure_cancel(bench: Bench, piece: Piece) -> dict[str, Any]:
    """Cancel at random moments: of a step with guidance, and of the decode after a shorter one."""
    opened, spec = _prepare(bench, piece)
    short = dataclasses.replace(spec, guidance_scale=1.0, guidance_scale_2=1.0)
    opened.draw(short)
    whole = opened.draw(short)
    step_s = passes(spec.guidance_scale) * _denoising_s(whole)
    moments = random.Random(1)

    def cancel(of: ClipSpec, phase: Phase, span_s: float, count: int) -> list[float | None]:
        waits = [span_s * moments.uniform(0.0, 0.9) for _ in range(count)]
        found = [opened.cancel(of, phase, after_s=wait) for wait in waits]
        return [None if one is None else figure(one) for one in found]

    in_step = cancel(spec, Phase.DENOISING, step_s, piece.repeats)
    in_decode = cancel(short, Phase.DECODING, whole.decode_s, DECODES_CANCELLED)
    return {
        "in_a_step_s": in_step,
        "in_the_decode_s": in_decode,
        "step_s": figure(step_s),
        "same_bytes_afterwards": bool(np.array_equal(whole.frames, opened.draw(short).frames)),
    }


def measure_match(bench: Bench, piece: Piece) -> dict[str, Any]:
    assert piece.setup is not None
    profile = bench.profiles[piece.setup.profile]
    spec = _spec(profile, piece)
    reference = bench.reference(profile.name, spec)
    run = bench.opened(piece.setup).draw(spec)
    error = (run.latents - reference.latents).abs()
    pixels = run.frames.astype(np.float32) - reference.frames
    noise = float(np.mean(pixels**2))
    return {
        "frames": spec.num_frames,
        "steps": spec.steps,
        "latents_max_abs": figure(float(error.max())),
        "latents_mean_abs": figure(float(error.mean())),
        "latents_relative": figure(float(error.norm() / reference.latents.norm())),
        "psnr_db": figure(10 * float(np.log10(255**2 / noise))) if noise else None,
        "same_bytes": noise == 0,
    }


def measure_lora(bench: Bench, piece: Piece) -> dict[str, Any]:
    """Swap pairs of rank 64 on every layer, which is the most that a style changes."""
    opened, spec = _prepare(bench, piece)
    uses = {
        letter: LoraUse(name=letter, high=letter * 64, low=letter * 64, strength=1.0)
        for letter in "ab"
    }
    with tempfile.TemporaryDirectory(prefix="vidmill-lora-") as folder:
        files = {
            letter: write_pair(
                opened.profile, Path(folder, letter), draw_on=bench.device, seed=seed
            )
            for seed, letter in enumerate(uses, start=1)
        }
        runs = [
            opened.draw(dataclasses.replace(spec, lora=uses.get(letter)), files.get(letter))
            for letter in ("", "", "a", "b", "a", "")
        ]
    _, base, first, other, again, back = runs
    outside = [run.wall_s - run.text_s - run.decode_s - _denoising_s(run) for run in runs]
    return {
        "frames": spec.num_frames,
        "steps": spec.steps,
        "load_s": figure(outside[2] - outside[1]),
        "swap_s": figure(outside[4] - outside[1]),
        "slower": figure(_denoising_s(again) / _denoising_s(base)),
        "pair_gb": figure(again.weights_gb - base.weights_gb),
        "same_bytes_without": bool(np.array_equal(base.frames, back.frames)),
        "same_bytes_again": bool(np.array_equal(first.frames, again.frames)),
        "pairs_differ": not np.array_equal(first.frames, other.frames),
    }


def measure_disk(bench: Bench, piece: Piece) -> dict[str, Any]:
    assert piece.setup is not None
    bench.close()
    return measure_load(bench.profiles[piece.setup.profile], device=bench.device)


MEASUREMENTS: Mapping[str, Callable[[Bench, Piece], dict[str, Any]]] = {
    "machine": measure_machine,
    "match": measure_match,
    "step": measure_step,
    "clip": measure_clip,
    "lora": measure_lora,
    "cancel": measure_cancel,
    "fits": measure_fits,
    "load": measure_disk,
}


def _prepare(bench: Bench, piece: Piece) -> tuple[Opened, ClipSpec]:
    assert piece.setup is not None
    return bench.opened(piece.setup), _spec(bench.profiles[piece.setup.profile], piece)


def _spec(profile: ModelProfile, piece: Piece) -> ClipSpec:
    spec = clip_spec(profile, piece.resolution, steps=piece.steps, duration_s=piece.clip_s)
    return dataclasses.replace(spec, flow_shift=piece.flow_shift or spec.flow_shift)


def _figures(opened: Opened, spec: ClipSpec, run: Run) -> dict[str, Any]:
    """Return seconds a step and, counted together from them, a clip of all the profile's steps."""
    profile = opened.profile
    each = {name: _settled_s(calls) for name, calls in run.forwards.items()}
    high, low = high_and_low(profile, profile.steps)
    pair = passes(spec.guidance_scale)
    clip_s = run.text_s + pair * (high * each[HIGH] + low * each[LOW]) + run.decode_s
    flops = forward_flops(expert_shape(profile), spec.native, spec.num_frames)
    return {
        "native": str(spec.native),
        "frames": spec.num_frames,
        "steps": spec.steps,
        "forward_high_s": figure(each[HIGH]),
        "forward_low_s": figure(each[LOW]),
        "first_forward_s": figure(max(calls[0] for calls in run.forwards.values() if calls)),
        "step_s": figure(pair * (high * each[HIGH] + low * each[LOW]) / profile.steps),
        "text_s": figure(run.text_s),
        "decode_s": figure(run.decode_s),
        "clip_s": figure(clip_s),
        "gemm": profile.gemm,
        "is_extrapolated": spec.steps != profile.steps,
        "linear_tflop": figure(flops.linear / 1e12),
        "attention_tflop": figure(flops.attention / 1e12),
        "weights_gb": figure(opened.weights_gb),
        "planned_gb": figure(_planned_bytes(profile, spec) / 1e9),
        "peak_gb": figure(run.peak_gb),
        "reserved_gb": figure(run.reserved_gb),
    }


def _planned_bytes(profile: ModelProfile, spec: ClipSpec) -> int:
    """Return the peak that the memory plan foresees; `profile` has one layout, the one in use."""
    made = plan_memory(
        anatomy_of(profile, None),
        profile.layouts,
        size=spec.native,
        num_frames=spec.num_frames,
        device_bytes=0,
    )
    return made.needs[0].peak_bytes


def _denoising_s(run: Run) -> float:
    return sum(map(sum, run.forwards.values()))


def _settled_s(calls: list[float]) -> float:
    """Return the median of *calls* without the first, which also compiles or picks kernels.

    Raises:
        ValueError: There was no other call: the piece has too few steps to say anything.
    """
    if len(calls) < _CALLS_MIN:
        raise ValueError(f"{len(calls)} calls of an expert, {_CALLS_MIN} are needed")
    return statistics.median(calls[1:])


_CALLS_MIN = 2
