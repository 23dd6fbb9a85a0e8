"""`python -m bench.gpu list | run | report`; the package's docstring shows how."""

import argparse
import json
import sys
from fnmatch import fnmatch
from pathlib import Path

import torch

from bench.gpu import machine
from bench.gpu.measurements import Bench
from bench.gpu.pieces import Piece, all_pieces
from bench.gpu.report import markdown
from bench.gpu.running import DeviceLost, run_pieces
from bench.gpu.scale import rehearsed, true_profiles
from bench.gpu.state import State, StateMismatch
from vidmill.telemetry import configure_logging

_STATE = Path("out/bench-gpu.json")


def main(arguments: list[str]) -> int:
    options = _parse(arguments)
    try:
        return _COMMANDS[options.command](options)
    except (Refused, StateMismatch) as error:
        print(error, file=sys.stderr)
        return 2


class Refused(Exception):
    """What was asked for cannot be done; the message says what to do instead."""


def _report(options: argparse.Namespace) -> int:
    if not options.state.is_file():
        raise Refused(
            f"{options.state} does not exist: `run` measures and writes it; --state names another"
        )
    print(markdown(State.read(options.state)))
    return 0


def _list(options: argparse.Namespace) -> int:
    _show(_chosen(options), State.read(options.state) if options.state.is_file() else None)
    return 0


def _run(options: argparse.Namespace) -> int:
    pieces, profiles = _chosen(options), true_profiles()
    # With its number: torch refuses to limit the memory of a device that has none.
    device = torch.device(options.device or ("cuda:0" if torch.cuda.is_available() else "cpu"))
    if device.type == "cpu" and not options.rehearse:
        raise Refused("no GPU here; only `--rehearse` runs on a CPU")
    scale = "rehearsal" if options.rehearse else "true"
    if options.rehearse:
        torch.set_num_threads(1)  # so small, more of them only wait for one another
        profiles = {name: rehearsed(profile) for name, profile in profiles.items()}
    weights = options.model_path or "random, seed 0"
    state = State.open(options.state, machine.about(device, scale=scale, weights=weights))
    configure_logging("warning", "text")
    bench = Bench(profiles, device=device, scale=scale, model_path=options.model_path)
    if options.again:
        for piece in pieces:
            state.reopen(piece.name)
    try:
        left = run_pieces(pieces, bench, state, within_s=options.within)
    except DeviceLost as error:
        print(f"the device broke in {error}; run again, the other pieces are left", file=sys.stderr)
        return 1
    if left:
        print(f"left for the next run: {', '.join(left)}")
    return 1 if any(o.status == "failed" for o in state.outcomes.values()) else 0


_COMMANDS = {"list": _list, "run": _run, "report": _report}


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("command", choices=tuple(_COMMANDS))
    parser.add_argument("pieces", nargs="*", help="patterns such as 'step:*'; none = all")
    parser.add_argument("--state", type=Path, default=_STATE, help=f"results; {_STATE}")
    parser.add_argument("--rehearse", action="store_true", help="tiny networks; claims nothing")
    parser.add_argument("--within", type=float, default=0.0, help="seconds; 0 = no limit")
    parser.add_argument("--again", action="store_true", help="also what failed or was skipped")
    parser.add_argument("--device", default="", help="cuda:1, cpu; cuda:0 if there is one")
    parser.add_argument("--model-path", default="", help="real weights, not random ones")
    return parser.parse_intermixed_args(arguments)


def _chosen(options: argparse.Namespace) -> list[Piece]:
    """Return the pieces that any pattern names, or all of them if there is no pattern."""
    pieces = all_pieces(true_profiles())
    for pattern in options.pieces:
        if not any(fnmatch(piece.name, pattern) for piece in pieces):
            raise Refused(f"no piece is called {pattern!r}: `list` shows all of them")
    patterns = options.pieces or ["*"]
    return [p for p in pieces if any(fnmatch(p.name, pattern) for pattern in patterns)]


def _show(pieces: list[Piece], state: State | None) -> None:
    open_s = 0.0
    for piece in pieces:
        outcome = state.outcomes.get(piece.name) if state else None
        values = json.dumps(outcome.values)[:80] if outcome and outcome.values else ""
        status = outcome.status if outcome else "-"
        if not (state and state.is_settled(piece.name)):
            open_s += piece.estimate_s
        so_far = f"{piece.estimate_s:5.0f} s {open_s / 60:5.1f} min"
        print(f"{so_far}  {status:8}{piece.name}  {values}")
    print(f"{len(pieces)} pieces; those still to run should take {open_s / 60:.0f} minutes")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
