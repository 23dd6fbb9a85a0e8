"""An engine that does what its prompt says, for tests of what a supervisor does about it.

It draws nothing worth seeing, but it lives where an engine lives: in a real render child, which
only the supervisor can save from it.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from vidmill.domain.clip import ClipSpec
from vidmill.domain.errors import EngineFailed, EngineOutOfMemory, ModelInvalid
from vidmill.domain.job import Phase
from vidmill.domain.ports import Allocate, Frames, Show, Watch
from vidmill.domain.preview_frames import preview_steps
from vidmill.domain.profile import ModelProfile

HANG_S = 600.0

SLEEPER = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
if {is_away}: os.setsid()
time.sleep(600)
"""


class TroubledEngine:
    """Draws a grey clip in `spec.steps` steps of 20 ms, with the trouble its prompt names."""

    def __init__(
        self,
        _profile: ModelProfile,
        source: str,
        *,
        device: str,  # noqa: ARG002  the signature of every engine
        threads: int,  # noqa: ARG002
        layout: str,  # noqa: ARG002
    ) -> None:
        self._folder = Path(source)

    def load(self) -> None:
        if (self._folder / "damaged").exists():
            raise ModelInvalid("transformer/model.safetensors is damaged; download it again")
        if (self._folder / "unusable").exists():
            raise EngineFailed("the device does not answer")
        if (self._folder / "stuck").exists():
            time.sleep(HANG_S)

    def warm(self, on_shape: Callable[[int, int], None]) -> None:
        on_shape(1, 1)

    def identity(self) -> Mapping[str, str]:
        return {"name": "troubled", "revision": "1", "sha256": "0" * 64}

    def generate(
        self, spec: ClipSpec, *, allocate: Allocate, watch: Watch, show: Show | None = None
    ) -> Frames:
        trouble = TROUBLES.get(spec.prompt)
        for step in range(spec.steps):
            watch.check()
            time.sleep(0.02)
            watch.report(Phase.DENOISING, step + 1, spec.steps)
            if show and step + 1 in preview_steps(spec.steps):
                native = spec.native
                show(step + 1, np.full((native.height_px, native.width_px, 3), 127, np.uint8))
            if trouble and step == spec.steps // 2:
                trouble()
        frames = allocate((spec.num_frames, spec.native.height_px, spec.native.width_px, 3))
        frames[:] = 127
        watch.report(Phase.DECODING, 1, 1)
        return frames

    def is_busy(self) -> bool:
        return False

    def close(self) -> None:
        pass


def _fail() -> None:
    raise EngineFailed("the device said no")


def _run_out_of_memory() -> None:
    raise EngineOutOfMemory("the device ran out of memory")


def _defect() -> None:
    raise ZeroDivisionError("a defect of the engine")


def _hang() -> None:
    """Heed neither the watch nor SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(HANG_S)


def _hang_with_family() -> None:
    for is_away in (False, True):
        subprocess.Popen([sys.executable, "-c", SLEEPER.format(is_away=is_away)])
    _hang()


TROUBLES: Mapping[str, Callable[[], None]] = {
    "fail": _fail,
    "run out of memory": _run_out_of_memory,
    "defect": _defect,
    "die": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "hang": _hang,
    "hang with family": _hang_with_family,
}
