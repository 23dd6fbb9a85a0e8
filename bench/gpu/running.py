"""Runs pieces one after the other, each settled on disk before the next begins."""

import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from bench.gpu.disk import NoRoom
from bench.gpu.measurements import MEASUREMENTS, Bench
from bench.gpu.pieces import Piece
from bench.gpu.state import Outcome, State
from vidmill.domain.errors import ModelInvalid


class DeviceLost(Exception):
    """After this piece the device answers nothing more to this process: the others are left."""


Clock = Callable[[], float]
Measure = Callable[[Bench, Piece], dict[str, Any]]


def run_pieces(
    pieces: Iterable[Piece],
    bench: Bench,
    state: State,
    *,
    within_s: float = 0.0,
    clock: Clock = time.monotonic,
    measurements: Mapping[str, Measure] = MEASUREMENTS,
) -> list[str]:
    """Run those of *pieces* that are not settled; return the names of those left for later.

    Args:
        pieces: In the order to take them.
        bench: Closed at the end.
        state: Told about every piece, before and after.
        within_s: A piece whose estimate exceeds what is left of this is left; 0 = no limit.
        clock: Seconds, monotonic.
        measurements: Functions by kind of piece.

    Raises:
        DeviceLost: No further piece can go well in this process.
    """
    started, left = clock(), []
    try:
        for piece in pieces:
            if state.is_settled(piece.name):
                continue
            if within_s and clock() - started + piece.estimate_s > within_s:
                left.append(piece.name)
                continue
            state.begin(piece.name, date=time.strftime("%Y-%m-%d", time.gmtime()))
            began = clock()
            outcome = _outcome(piece, bench, measurements[piece.kind])
            state.end(piece.name, replace(outcome, wall_s=clock() - began))
            _tell(piece, state.outcomes[piece.name])
            if outcome.status == "failed" and not bench.is_alive():
                raise DeviceLost(piece.name)
    finally:
        bench.close()
    return left


def _outcome(piece: Piece, bench: Bench, measure: Measure) -> Outcome:
    try:
        return Outcome(status="done", values=measure(bench, piece))
    except (ModelInvalid, NoRoom) as error:  # what this device or build cannot do
        bench.close()
        return Outcome(status="skipped", reason=str(error))
    except Exception as error:  # noqa: BLE001  # the other pieces may still go well
        bench.close()
        traceback.print_exc(file=sys.stderr)
        return Outcome(status="failed", reason=f"{type(error).__name__}: {error}")


def _tell(piece: Piece, outcome: Outcome) -> None:
    took = f"{outcome.wall_s:8.1f} s (estimate {piece.estimate_s:.0f})"
    print(f"{outcome.status:8}{took}  {piece.name}  {outcome.reason}", flush=True)
