from dataclasses import dataclass

import pytest
import torch
from torch import nn

from tests.builders import FakeClock
from tests.watches import RecordingWatch
from vidmill.domain.errors import JobCancelled
from vidmill.domain.job import Phase
from vidmill.engines.pulse import Mark, Pulse, marker


class Queue:
    """A device that finishes nothing before it is waited for."""

    def __init__(self) -> None:
        self.marked = self.finished = 0

    def mark(self) -> Mark:
        self.marked += 1
        return _Place(self, self.marked)


@dataclass
class _Place:
    queue: Queue
    number: int

    def synchronize(self) -> None:
        self.queue.finished = self.number


def blocks(count: int) -> list[nn.Module]:
    return [nn.Identity() for _ in range(count)]


def test_blocks_run_freely_between_clips() -> None:
    pulse, [block] = Pulse(), blocks(1)
    pulse.listen_to_denoiser([block])
    pulse.listen_to_decoder([block])
    block(torch.zeros(1))
    pulse.end_step(1)


def test_every_block_call_asks_and_steps_are_reported_in_block_calls() -> None:
    pulse, layers, watch = Pulse(), blocks(3), RecordingWatch()
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
    pulse = Pulse(clock=clock)
    pulse.listen_to_denoiser(layers)
    pulse.start(watch, num_steps=1, blocks_per_step=4)
    for layer in layers:
        clock.advance(0.2)
        layer(torch.zeros(1))
    assert [done for _, done, _ in watch.of(Phase.DENOISING)] == [0, 1, 3]


def test_a_cancel_stops_the_block_before_it_computes() -> None:
    pulse, watch = Pulse(), RecordingWatch()
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


@pytest.mark.parametrize("part", ["denoiser", "decoder"])
def test_a_device_has_at_most_two_blocks_in_hand_when_the_next_is_asked_about(part: str) -> None:
    queue, layers = Queue(), blocks(6)
    pulse = Pulse(mark=queue.mark)
    listen = pulse.listen_to_denoiser if part == "denoiser" else pulse.listen_to_decoder
    listen(layers)
    in_hand: list[int] = []

    class Asking(RecordingWatch):
        def check(self) -> None:
            in_hand.append(queue.marked - queue.finished)

    pulse.start(Asking(), num_steps=1, blocks_per_step=6)
    for layer in layers:
        layer(torch.zeros(1))
    assert in_hand == [1, 2, 2, 2, 2, 2]


def test_a_device_that_computes_at_once_is_not_waited_for() -> None:
    assert marker(torch.device("cpu")) is None
    assert marker(torch.device("cuda")) is not None
