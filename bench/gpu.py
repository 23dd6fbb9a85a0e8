"""What one engine costs on this device: load, warm-up, step, clip, peak memory, cancel latency.

    python bench/gpu.py                                            # tiny, on what there is
    python bench/gpu.py --profile wan2.2-t2v-a14b --model-path /models/a14b --resolution 720p

Prints one JSON object. Seconds are wall time of this process; nothing else should be running.
"""

import argparse
import json
import resource
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from vidmill.domain.clip import DELIVERED_SIZES, ClipSpec, Resolution
from vidmill.domain.errors import JobCancelled
from vidmill.domain.job import Phase
from vidmill.domain.ports import Engine
from vidmill.domain.profile import ModelProfile
from vidmill.engines import ENGINES
from vidmill.plugins import load_plugin
from vidmill.profiles import load_profile, resolve_source
from vidmill.telemetry import configure_logging


class StopWatch:
    """Times phases; raises once `cancel` is set."""

    def __init__(self) -> None:
        self.first: dict[Phase, float] = {}
        self.last: dict[Phase, float] = {}
        self.cancel = threading.Event()

    def report(self, phase: Phase, done: int, total: int) -> None:  # noqa: ARG002
        now = time.perf_counter()
        self.first.setdefault(phase, now)
        self.last[phase] = now

    def check(self) -> None:
        if self.cancel.is_set():
            raise JobCancelled("the bench asked for it")

    def seconds(self, phase: Phase) -> float:
        return self.last[phase] - self.first[phase]


def main() -> None:
    options = parse()
    configure_logging("warning", "text")
    profile = load_profile(options.profile)
    seconds: dict[str, float] = {}
    clips: list[dict[str, Any]] = []
    make = timed(seconds, "import", lambda: load_plugin(ENGINES, options.engine))
    engine: Engine = make(
        profile,
        resolve_source(profile, options.model_path),
        device=options.device,
        threads=options.threads,
    )
    timed(seconds, "load", engine.load)
    timed(seconds, "warm", lambda: engine.warm(lambda _done, _total: None))
    for duration_s in options.duration:
        spec = spec_of(profile, options, duration_s=duration_s)
        clips.append(measure_clip(engine, spec))
    report = {
        "identity": dict(engine.identity()),
        "device": device_name(),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "clips": clips,
        "cancel_latency_s": [
            measure_cancel(engine, spec, after_s=clips[-1]["clip_s"] * share)
            for share in (0.1, 0.3, 0.5, 0.7)
        ],
        "peak_host_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "peak_device_mib": peak_device_mib(),
    }
    engine.close()
    print(json.dumps(report, indent=1))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="wan", choices=sorted(ENGINES))
    parser.add_argument("--profile", default="tiny")
    parser.add_argument("--model-path", default="")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--resolution", type=Resolution, default=Resolution.P480)
    parser.add_argument("--duration", type=float, nargs="+", default=[3.0, 10.0])
    parser.add_argument("--steps", type=int, default=0, help="0 = the profile's")
    return parser.parse_args()


def timed(seconds: dict[str, float], name: str, act: Callable[[], Any]) -> Any:
    started = time.perf_counter()
    result = act()
    seconds[name] = time.perf_counter() - started
    return result


def spec_of(profile: ModelProfile, options: argparse.Namespace, *, duration_s: float) -> ClipSpec:
    return ClipSpec(
        prompt="a red ball moves to the right on a blue background",
        negative_prompt=profile.default_negative_prompt,
        profile=profile.name,
        resolution=options.resolution,
        size=DELIVERED_SIZES[options.resolution],
        native=profile.sizes[options.resolution],
        duration_s=duration_s,
        fps=profile.native_fps,
        native_fps=profile.native_fps,
        num_frames=profile.num_frames(duration_s),
        steps=options.steps or profile.steps,
        guidance_scale=profile.guidance_scale,
        guidance_scale_2=profile.guidance_scale_2,
        flow_shift=profile.flow_shift,
        seed=1,
    )


def measure_clip(engine: Engine, spec: ClipSpec) -> dict[str, Any]:
    watch = StopWatch()
    started = time.perf_counter()
    engine.generate(spec, allocate=lambda shape: np.empty(shape, np.uint8), watch=watch)
    total_s = time.perf_counter() - started
    denoising_s = watch.seconds(Phase.DENOISING)
    return {
        "duration_s": spec.duration_s,
        "native": str(spec.native),
        "num_frames": spec.num_frames,
        "steps": spec.steps,
        "clip_s": round(total_s, 3),
        "step_s": round(denoising_s / spec.steps, 4),
        "denoising_s": round(denoising_s, 3),
        "decoding_s": round(watch.seconds(Phase.DECODING), 3),
    }


def measure_cancel(engine: Engine, spec: ClipSpec, *, after_s: float) -> float | None:
    """Return seconds from a flag raised *after_s* into a clip to the return; None = too late."""
    watch = StopWatch()
    flagged_at: list[float] = []

    def flag() -> None:
        flagged_at.append(time.perf_counter())
        watch.cancel.set()

    timer = threading.Timer(after_s, flag)
    timer.start()
    try:
        engine.generate(spec, allocate=lambda shape: np.empty(shape, np.uint8), watch=watch)
    except JobCancelled:
        return round(time.perf_counter() - flagged_at[0], 4)
    finally:
        timer.cancel()
    return None


def device_name() -> str:
    import torch  # noqa: PLC0415

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def peak_device_mib() -> int | None:
    import torch  # noqa: PLC0415

    return torch.cuda.max_memory_allocated() // 2**20 if torch.cuda.is_available() else None


if __name__ == "__main__":
    main()
