"""The pulse of a running clip: cancel and progress inside a step, from hooks on the blocks.

A step of A14B takes 16 s; its 80 block calls (two guidance passes of 40) make it answer within one
of them. Raising from a forward pre-hook unwinds diffusers' loop cleanly; its own `_interrupt` flag
would still decode the half-done latent and return it as a result.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from vidmill.domain.job import Phase
from vidmill.domain.ports import Watch

_BLOCKS_AHEAD = 4
"""How far Python may run ahead of a GPU. A 720p block takes 0.2 s: it stays fed, a cancel < 1 s."""

_REPORT_INTERVAL_S = 0.25
"""Least time between reports inside a step; the end of a step is always reported."""


class Pulse:
    """Calls the watch of the clip in hand before every block of the modules it listens to.

    Args:
        is_async: The device queues work (CUDA): wait for blocks launched before, or hooks would
            fire seconds before the arithmetic and a cancel would come too late.
        clock: Seconds, monotonic.
    """

    def __init__(self, *, is_async: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._is_async = is_async
        self._clock = clock
        self._watch: Watch | None = None
        self._launched: deque[Any] = deque()
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

    def end_step(self, step: int) -> None:
        """Report *step* (1-based) as finished."""
        if self._watch is None:
            return
        self._watch.check()
        self._reported_at = self._clock()
        self._watch.report(Phase.DENOISING, step * self._blocks_per_step, self._total)

    def stop(self) -> None:
        """End a clip, however it ended."""
        self._watch = None
        self._launched.clear()

    def _before_decoder_block(self, *_: object) -> None:
        if self._watch is not None:
            self._watch.check()

    def _before_denoiser_block(self, *_: object) -> None:
        if self._watch is None:
            return
        if self._is_async:
            self._wait_for_device()
        self._watch.check()
        self._done += 1
        now = self._clock()
        if now - self._reported_at >= _REPORT_INTERVAL_S:
            self._reported_at = now
            self._watch.report(Phase.DENOISING, self._done - 1, self._total)

    def _wait_for_device(self) -> None:
        event: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._launched.append(event)
        if len(self._launched) > _BLOCKS_AHEAD:
            self._launched.popleft().synchronize()
