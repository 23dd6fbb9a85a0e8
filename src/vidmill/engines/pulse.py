"""The pulse of a running clip: cancel and progress inside a step, from hooks on the blocks.

A step of A14B takes 16 s; its 80 block calls (two guidance passes of 40) make it answer within one
of them. Raising from a forward pre-hook unwinds diffusers' loop cleanly; its own `_interrupt` flag
would still decode the half-done latent and return it as a result.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import nn

from vidmill.domain.job import Phase
from vidmill.domain.ports import Watch

BLOCKS_AHEAD = 2
"""How many blocks a GPU may have in hand when Python comes to the next. One keeps it fed, for it
takes longer than the launch of another (0.2 s at 720p against milliseconds); the second covers a
busy host. After a cancel the device is free within these two."""

_REPORT_INTERVAL_S = 0.25
"""Least time between reports inside a step; the end of a step is always reported."""


class Mark(Protocol):
    """A place in a device's queue of work."""

    def synchronize(self) -> None:
        """Wait until the device has come to it."""
        ...


def marker(device: torch.device) -> Callable[[], Mark] | None:
    """Return what marks the end of the work queued on *device*; None if it queues none."""
    return _mark_cuda if device.type == "cuda" else None


class Pulse:
    """Calls the watch of the clip in hand before every block of the modules it listens to.

    The hooks lie around whatever a block's `forward` has become, so they see compiled blocks, and
    blocks that a step cache skips, like any other.

    Args:
        mark: See `marker`. With it, each hook waits for the blocks launched before, or it would
            fire seconds before the arithmetic and a cancel would come too late.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        *,
        mark: Callable[[], Mark] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._mark = mark
        self._clock = clock
        self._watch: Watch | None = None
        self._launched: deque[Mark] = deque()
        self._done = self._total = self._blocks_per_step = 0
        self._reported_at = 0.0

    def listen_to_denoiser(self, blocks: Iterable[nn.Module]) -> None:
        """Count the calls of transformer *blocks* as progress, and check before each."""
        for block in blocks:
            block.register_forward_pre_hook(self._before_denoiser_block)

    def listen_to_decoder(self, blocks: Iterable[nn.Module]) -> None:
        """Check before each call of *blocks*."""
        for block in blocks:
            block.register_forward_pre_hook(self._before_decoder_block)

    def start(self, watch: Watch, *, num_steps: int, blocks_per_step: int) -> None:
        """Begin a clip: block calls are the units of progress from now on."""
        self._watch, self._done, self._total = watch, 0, num_steps * blocks_per_step
        self._blocks_per_step = blocks_per_step
        self._reported_at = self._clock()
        watch.report(Phase.DENOISING, 0, self._total)

    @property
    def blocks_done(self) -> int:
        """Calls of transformer blocks begun in this clip before the one at hand."""
        return self._done

    def end_step(self, step: int) -> None:
        """Report *step* (1-based) as finished."""
        if self._watch is None:
            return
        self._watch.check()
        self._reported_at = self._clock()
        self._watch.report(Phase.DENOISING, step * self._blocks_per_step, self._total)

    def stop(self) -> None:
        """End a clip, however it ended."""
        self._watch, self._done = None, 0
        self._launched.clear()

    def _before_decoder_block(self, *_: object) -> None:
        if self._watch is not None:
            self._wait_for_device()
            self._watch.check()

    def _before_denoiser_block(self, *_: object) -> None:
        if self._watch is None:
            return
        self._wait_for_device()
        self._watch.check()
        self._done += 1
        now = self._clock()
        if now - self._reported_at >= _REPORT_INTERVAL_S:
            self._reported_at = now
            self._watch.report(Phase.DENOISING, self._done - 1, self._total)

    def _wait_for_device(self) -> None:
        if self._mark is None:
            return
        self._launched.append(self._mark())
        if len(self._launched) > BLOCKS_AHEAD:
            self._launched.popleft().synchronize()


def _mark_cuda() -> Mark:
    event: Any = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # sleeps, not spins
    event.record()
    return event  # type: ignore[no-any-return]
