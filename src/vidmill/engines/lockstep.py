"""How ranks that draw one clip stop it before the same block.

An exchange that not all ranks come to never ends, so a rank may not stop by itself: rank 0 chooses
a block that none of them has come to yet, and each of them looks before every block.
"""

from typing import Protocol

from vidmill.domain.errors import JobCancelled
from vidmill.domain.job import Phase
from vidmill.domain.ports import Watch
from vidmill.engines.pulse import BLOCKS_AHEAD, Pulse

MARGIN_BLOCKS = BLOCKS_AHEAD + 2
"""How far ahead rank 0 places a stop. When a rank comes to block m, its device has finished block
m - BLOCKS_AHEAD - 1, in whose exchange rank 0 took part; the end of a step is one block further. So
no rank is past the stop when rank 0 writes it down, and none can come to it without seeing it."""


class Stop(Protocol):
    """A number that all ranks see at once; see `worker.channel.StopWord`."""

    def ask(self, number: int, /) -> None: ...

    def is_asked(self, number: int, /) -> bool: ...


class Lockstep:
    """Lets every rank stop one clip before the same block.

    Args:
        clip: Its number; with the number of the block it names a moment no other clip has, so that
            a stop of an earlier clip hits none that follows.
    """

    def __init__(self, stop: Stop, pulse: Pulse, clip: int) -> None:
        self._stop = stop
        self._pulse = pulse
        self._first = clip << 32

    def ask(self, *, within_blocks: int) -> None:
        """Have all ranks stop so many blocks from here. Rank 0 only, once."""
        self._stop.ask(self._first + self._pulse.blocks_done + within_blocks)

    def check(self) -> None:
        """Raise `JobCancelled` at the block that rank 0 chose."""
        if self._stop.is_asked(self._first + self._pulse.blocks_done):
            raise JobCancelled("stopped on request, on all ranks")


class LeadWatch:
    """Rank 0's watch: while it denoises, a cancel is first agreed upon; later it is obeyed."""

    def __init__(self, watch: Watch, lockstep: Lockstep, *, margin_blocks: int) -> None:
        self._watch = watch
        self._lockstep = lockstep
        self._margin_blocks = margin_blocks
        self._is_asked = self._is_alone = False

    def report(self, phase: Phase, done: int, total: int) -> None:
        self._is_alone = phase is Phase.DECODING
        self._watch.report(phase, done, total)

    def check(self) -> None:
        if self._is_alone:
            self._watch.check()
            return
        if not self._is_asked:
            try:
                self._watch.check()
            except JobCancelled:
                self._is_asked = True
                self._lockstep.ask(within_blocks=self._margin_blocks)
        self._lockstep.check()


class MateWatch:
    """The watch of every other rank, whose progress nobody asks for."""

    def __init__(self, lockstep: Lockstep) -> None:
        self.check = lockstep.check

    def report(self, phase: Phase, done: int, total: int) -> None: ...
