"""Which native frames make each delivered frame, and the frames between them.

The clip plays at its true speed: delivered frame *i* shows native position `i * native_fps / fps`.
So a native frame that falls on a delivered instant passes through untouched (all of them at equal
rates, every second one at 16 -> 24), and what a longer native clip has beyond the asked length is
left out. Only a native clip that is too short is slowed down to fill the length.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import TypeVar

from vidmill.media.flow import Between, blend_between, flow_between
from vidmill.media.i420 import Pixels

_T = TypeVar("_T")


@dataclass(frozen=True)
class Moment:
    """Native frame *index*, and a share of the way to the next one; 0 = the very frame."""

    index: int
    share: float = 0.0


def schedule(native: int, native_fps: int, *, delivered: int, fps: int) -> list[Moment]:
    """Return where each of *delivered* frames at *fps* lies among *native* ones at *native_fps*."""
    step = Fraction(native_fps, fps)
    if delivered > 1:
        step = min(step, Fraction(native - 1, delivered - 1))
    places = [divmod(step * i, 1) for i in range(delivered)]
    return [Moment(int(index), float(share)) for index, share in places]


def poster_index(moments: list[Moment]) -> int:
    """Return the delivered frame nearest the middle that is a native one: nothing invented."""
    middle = (len(moments) - 1) / 2
    exact = [i for i, moment in enumerate(moments) if moment.share == 0]
    return min(exact, key=lambda i: abs(i - middle))


def retimed(
    native: Iterable[Pixels], moments: Sequence[Moment], *, interpolation: str
) -> Iterator[Pixels]:
    """Yield one I420 frame per moment, reading *native* once and holding two of its frames."""
    between = INTERPOLATIONS[interpolation]
    steps = len(moments) / (moments[-1].index + moments[-1].share + 1)
    pairs = enumerate(pairwise(_with_end(native)))
    (index, (here, there)), inner = next(pairs), None
    for moment in moments:
        while index < moment.index:
            (index, (here, there)), inner = next(pairs), None
        if moment.share == 0:
            yield here
            continue
        inner = inner or between(here, there, steps=steps)
        yield inner(moment.share)


def ahead(items: Iterator[_T], depth: int) -> Generator[_T, None, None]:
    """Yield *items* while a thread makes up to *depth* more: OpenCV and x264 both drop the GIL."""
    end = object()
    pool = ThreadPoolExecutor(1, thread_name_prefix="retime")
    try:
        made = deque(pool.submit(next, items, end) for _ in range(depth))
        while (item := made.popleft().result()) is not end:
            made.append(pool.submit(next, items, end))
            yield item  # type: ignore[misc]  # not the sentinel
    finally:
        pool.shutdown(cancel_futures=True)


INTERPOLATIONS: Mapping[str, Callable[..., Between]] = {
    "flow": flow_between,
    "blend": blend_between,
}


def _with_end(native: Iterable[Pixels]) -> Iterator[Pixels]:
    """Repeat the last frame once, so that it too begins a pair."""
    last = None
    for frame in native:
        last = frame
        yield frame
    if last is not None:
        yield last
