"""Clocks and probes on a pipeline while the real engine runs it."""

import threading
import time
from typing import Any

import torch
from torch import Tensor, nn

from vidmill.domain.errors import JobCancelled
from vidmill.domain.job import Phase


class StopWatch:
    """A watch that notes when phases begin and, if asked, cancels some time after one began."""

    def __init__(self, *, cancel_in: Phase | None = None, after_s: float = 0.0) -> None:
        self._cancel_in = cancel_in
        self._after_s = after_s
        self.begun_at: dict[Phase, float] = {}
        self.flagged_at: float | None = None

    def report(self, phase: Phase, done: int, total: int) -> None:  # noqa: ARG002
        if phase in self.begun_at:
            return
        self.begun_at[phase] = time.perf_counter()
        if phase is self._cancel_in:
            timer = threading.Timer(self._after_s, self._flag)
            timer.daemon = True
            timer.start()

    def check(self) -> None:
        if self.flagged_at is not None:
            raise JobCancelled("the bench asked for it")

    def _flag(self) -> None:
        self.flagged_at = time.perf_counter()


class Probe:
    """Times every call of the modules it is attached to, by the device's own clock.

    Python runs ahead of a GPU, so the clock is read by events in its queue; nothing waits for them
    before `seconds` is asked for.
    """

    def __init__(self, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self._marks: dict[str, list[tuple[Any, Any]]] = {}

    def attach(self, name: str, module: nn.Module) -> None:
        begun: list[Any] = []
        self._marks[name] = []

        def before(*_: object) -> None:
            begun.append(self._now())

        def after(*_: object) -> None:
            self._marks[name].append((begun.pop(), self._now()))

        module.register_forward_pre_hook(before)
        module.register_forward_hook(after)

    def reset(self) -> None:
        for marks in self._marks.values():
            marks.clear()

    def seconds(self, name: str) -> list[float]:
        """Return the seconds of each call of *name* since the last reset, oldest first."""
        if not self._is_cuda:
            return [end - begin for begin, end in self._marks[name]]
        torch.cuda.synchronize()
        return [begin.elapsed_time(end) / 1000 for begin, end in self._marks[name]]

    def _now(self) -> Any:
        if not self._is_cuda:
            return time.perf_counter()
        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


class LatentTap:
    """Keeps what the VAE is given to decode: the clip's latents, before any pixel is rounded."""

    def __init__(self, vae: Any) -> None:
        self.latents: Tensor | None = None
        vae.post_quant_conv.register_forward_pre_hook(self._keep)

    def _keep(self, _module: object, inputs: tuple[Tensor, ...]) -> None:
        self.latents = inputs[0].detach().float().cpu()


def settle(device: torch.device) -> None:
    """Wait until *device* has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def figure(value: float) -> float:
    """Return *value* with the digits that a measurement has."""
    return float(f"{value:.4g}")
