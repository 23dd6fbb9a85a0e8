"""The engine of production, opened on made-up weights, with the bench's instruments inside it."""

import dataclasses
import gc
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.gpu.instruments import LatentTap, Probe, StopWatch, settle
from bench.gpu.weights import random_pipeline, write_pair
from vidmill.domain.clip import ClipSpec
from vidmill.domain.errors import JobCancelled
from vidmill.domain.job import Phase
from vidmill.domain.ports import Frames, LoraFiles
from vidmill.domain.profile import Distilled, Layout, ModelProfile
from vidmill.engines.pipeline import Parts, open_folder
from vidmill.engines.reading import Homes
from vidmill.engines.wan import WanEngine

HIGH, LOW, DECODER = "transformer", "transformer_2", "decoder"

_CONTEXT_GB = 1.0
"""What CUDA itself takes of a card, outside torch's allocator."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How a profile is opened. Pieces of one setup share an engine.

    Attributes:
        is_plain: Without compiling and FP8 products, and with torch's own attention: the eager
            path that everything else is compared with.
        has_step_cache: With the profile's step cache. Off where time is measured: how often it hits
            follows from real clips, not from random weights.
        memory_gb: Pretend the card has this much (1e9 bytes); None = all of it.
    """

    profile: str
    layout: Layout = Layout.RESIDENT
    is_plain: bool = False
    is_compiled: bool = True
    has_step_cache: bool = False
    memory_gb: int | None = None

    @property
    def label(self) -> str:
        """Return a name that tells it from the others, for people."""
        words = [self.profile, str(self.layout)]
        if self.is_plain or not self.is_compiled:
            words.append("plain" if self.is_plain else "eager")
        if self.has_step_cache:
            words.append("cached")
        if self.memory_gb:
            words.append(f"{self.memory_gb}gb")
        return "-".join(words)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One clip.

    Attributes:
        forwards: Seconds of each call of an expert, oldest first.
        text_s: Seconds until the experts began.
        decode_s: Seconds inside the VAE's decoder.
        peak_gb: Most that torch held on the device, 1e9 bytes.
        reserved_gb: Most that torch's allocator took from the device.
        weights_gb: What torch holds on the device after it.
    """

    frames: Frames
    latents: Tensor
    wall_s: float
    text_s: float
    forwards: Mapping[str, list[float]]
    decode_s: float
    peak_gb: float
    reserved_gb: float
    weights_gb: float


class Opened:
    """An engine with its weights, and probes on its parts. Close it before opening another.

    Args:
        profile: At the scale in use, as the shipped TOML says.
        setup: What to change about it.
        device: Where.
        model_path: A folder with real weights instead of made-up ones; empty = none.
    """

    def __init__(
        self, profile: ModelProfile, setup: Setup, *, device: torch.device, model_path: str = ""
    ) -> None:
        self.profile = arrange(profile, setup)
        self.device = device
        self._layout = setup.layout
        self._pipe: Any = None
        limit_memory(device, setup.memory_gb)
        _reset_peak(device)
        with tempfile.TemporaryDirectory(prefix="vidmill-pair-") as folder:
            if self.profile.distilled and not model_path:
                pair = write_pair(self.profile, Path(folder), draw_on=device)
                distilled = Distilled(source=folder, high=pair.high.name, low=pair.low.name)
                self.profile = dataclasses.replace(self.profile, distilled=distilled)
            started = time.perf_counter()
            self.engine = WanEngine(
                self.profile,
                model_path,
                device=str(device),
                open_parts=self._open_folder if model_path else self._make_up,
            )
            self.engine.load()
            settle(device)
            self.open_s = time.perf_counter() - started
        self.weights_gb = _allocated_gb(device)
        self._probe = Probe(device)
        pipe: Any = self._pipe
        self._probe.attach(HIGH, pipe.transformer)
        self._probe.attach(LOW, pipe.transformer_2)
        self._probe.attach(DECODER, pipe.vae.decoder)
        self._tap = LatentTap(pipe.vae)

    def draw(self, spec: ClipSpec, lora: LoraFiles | None = None) -> Run:
        """Return what one clip took; *lora* are the files of the one that *spec* names."""
        self._probe.reset()
        _reset_peak(self.device)
        settle(self.device)
        watch, started = StopWatch(), time.perf_counter()
        frames = self.engine.generate(spec, allocate=_in_memory, watch=watch, lora=lora)
        settle(self.device)
        wall_s = time.perf_counter() - started
        assert self._tap.latents is not None
        return Run(
            frames=frames,
            latents=self._tap.latents,
            wall_s=wall_s,
            text_s=watch.begun_at[Phase.DENOISING] - started,
            forwards={name: self._probe.seconds(name) for name in (HIGH, LOW)},
            decode_s=sum(self._probe.seconds(DECODER)),
            peak_gb=_peak_gb(self.device),
            reserved_gb=_reserved_gb(self.device),
            weights_gb=_allocated_gb(self.device),
        )

    def cancel(self, spec: ClipSpec, phase: Phase, *, after_s: float) -> float | None:
        """Cancel a clip *after_s* into *phase*; return seconds until the device is idle.

        None means that the phase was over before.
        """
        watch = StopWatch(cancel_in=phase, after_s=after_s)
        try:
            self.engine.generate(spec, allocate=_in_memory, watch=watch)
        except JobCancelled:
            settle(self.device)
            assert watch.flagged_at is not None
            return time.perf_counter() - watch.flagged_at
        return None

    def close(self) -> None:
        self.engine.close()
        self._pipe = self._probe = self._tap = None  # type: ignore[assignment]
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _make_up(self, profile: ModelProfile, _source: str, _homes: Homes) -> Parts:
        is_resident = self._layout is Layout.RESIDENT
        keep_on = self.device if is_resident else torch.device("cpu")
        self._pipe = random_pipeline(profile, draw_on=self.device, keep_on=keep_on)
        return Parts(self._pipe, lambda: {"sha256": "random weights"})

    def _open_folder(self, profile: ModelProfile, source: str, homes: Homes) -> Parts:
        parts = open_folder(profile, source, homes)
        self._pipe = parts.pipe
        return parts


def arrange(profile: ModelProfile, setup: Setup) -> ModelProfile:
    """Return *profile* as *setup* wants it."""
    changes: dict[str, Any] = {"layouts": (setup.layout,)}
    if setup.is_plain:
        changes |= {"gemm": "native", "attention": ("native",)}
    if not setup.has_step_cache:
        changes |= {"step_cache": None}
    if setup.is_plain or not setup.is_compiled:
        changes |= {"compile": ""}
    return dataclasses.replace(profile, **changes)


def limit_memory(device: torch.device, memory_gb: int | None) -> None:
    """Give torch no more of *device* than a card of *memory_gb* has; None = all of it."""
    if device.type != "cuda":
        return
    whole = torch.cuda.get_device_properties(device).total_memory
    share = 1.0 if memory_gb is None else (memory_gb - _CONTEXT_GB) * 1e9 / whole
    torch.cuda.set_per_process_memory_fraction(min(1.0, share), device)


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _allocated_gb(device: torch.device) -> float:
    return torch.cuda.memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0


def _peak_gb(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0


def _reserved_gb(device: torch.device) -> float:
    return torch.cuda.max_memory_reserved(device) / 1e9 if device.type == "cuda" else 0.0


def _in_memory(shape: tuple[int, int, int, int]) -> Frames:
    return np.empty(shape, np.uint8)
