import pytest
import torch
from torch import nn

from tests.builders import FakeClock
from tests.watches import RecordingWatch
from vidmill.domain.errors import JobCancelled
from vidmill.domain.job import Phase
from vidmill.engines.pulse import Pulse


def blocks(count: int) -> list[nn.Module]:
    return [nn.Identity() for _ in range(count)]


def test_blocks_run_freely_between_clips() -> None:
    pulse, [block] = Pulse(is_async=False), blocks(1)
    pulse.listen_to_denoiser([block])
    pulse.listen_to_decoder([block])
    block(torch.zeros(1))
    pulse.end_step(1)


def test_every_block_call_asks_and_steps_are_reported_in_block_calls() -> None:
    pulse, layers, watch = Pulse(is_async=False), blocks(3), RecordingWatch()
    pulse.listen_to_denoiser(layers)
    pulse.start(watch, num_steps=2, blocks_per_step=3)
    for step in (1, 2):
        for layer in layers:
            layer(torch.zeros(1))
        pulse.end_step(step)
    assert watch.checks == 8
    assert watch.of(Phase.DENOISING) == [(Phase.DENOISING, done, 6) for done in (0, 3, 6)]


def test_a_slow_step_reports_inside_itself() -> None:
    clock, layers, watch = FakeClock(), blocks(4), RecordingWatch()
    pulse = Pulse(is_async=False, clock=clock)
    pulse.listen_to_denoiser(layers)
    pulse.start(watch, num_steps=1, blocks_per_step=4)
    for layer in layers:
        clock.advance(0.2)
        layer(torch.zeros(1))
    assert [done for _, done, _ in watch.of(Phase.DENOISING)] == [0, 1, 3]


def test_a_cancel_stops_the_block_before_it_computes() -> None:
    pulse, watch = Pulse(is_async=False), RecordingWatch()
    computed: list[int] = []
    layer = nn.Identity()
    layer.register_forward_hook(lambda *_: computed.append(1))
    pulse.listen_to_decoder([layer])
    pulse.start(watch, num_steps=1, blocks_per_step=1)
    layer(torch.zeros(1))
    watch.is_cancel_requested = True
    with pytest.raises(JobCancelled):
        layer(torch.zeros(1))
    pulse.stop()
    layer(torch.zeros(1))
    assert len(computed) == 2
