"""The command line: ``python -m training all --run-dir out/train`` and its tools."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from training.evaluate import GUIDANCE_HIGH, GUIDANCE_LOW, NUM_STEPS, Sampling, evaluate
from training.export import export_folder, load_pipeline
from training.finished_clips import caption_rows, score_manifest
from training.public_path import SHIPPED, score_public_path
from training.stages import REPORT_LENGTHS, assemble, train_all
from training.workers import prepare_process
from vidmill.cli.output import CommandError


def _all(arguments: argparse.Namespace) -> None:
    train_all(arguments.run_dir, arguments.share)


def _export(arguments: argparse.Namespace) -> None:
    run = arguments.run_dir
    if lacking := [name for name in ("text", "codec", "shared.pt") if not (run / name).exists()]:
        sys.exit(f"--run-dir {run} has no {lacking[0]} yet: let `all --run-dir {run}` go on first")
    export_folder(assemble(arguments.run_dir), arguments.folder)


def _evaluate(arguments: argparse.Namespace) -> None:
    sampling = Sampling(arguments.steps, arguments.guidance, arguments.guidance_2)
    report = evaluate(
        load_pipeline(arguments.folder),
        arguments.frames,
        count=arguments.count,
        sampling=sampling,
        sheet_folder=arguments.sheets,
    )
    _print_json(report)


def _captions(arguments: argparse.Namespace) -> None:
    for row in caption_rows(arguments.count):
        sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")


def _score_clips(arguments: argparse.Namespace) -> None:
    _print_json(score_manifest(arguments.manifest))


def _score_public(arguments: argparse.Namespace) -> None:
    try:
        report = score_public_path(arguments.count, arguments.folder, model=arguments.model)
    except CommandError as error:
        sys.exit(str(error))
    _print_json(report)
    if not all(bar["met"] for bar in report["gate"].values()):
        sys.exit(1)


def _print_json(report: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(report, indent=2, ensure_ascii=False) + "\n")


def _existing(text: str) -> Path:
    path = Path(text)
    if not path.exists():
        raise argparse.ArgumentTypeError(f"{text} does not exist")
    return path


def _share(text: str) -> float:
    share = float(text)
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return share


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("--threads", type=int, default=2, help="torch threads of this process")
    commands = parser.add_subparsers(required=True)

    command = commands.add_parser("all", help="train, export and score; resumes")
    command.add_argument("--run-dir", type=Path, required=True)
    command.add_argument("--share", type=_share, default=1.0, help="of the steps; to rehearse")
    command.set_defaults(call=_all)

    command = commands.add_parser("export", help="write the folder from a run so far")
    command.add_argument("--run-dir", type=_existing, required=True)
    command.add_argument("--folder", type=Path, required=True)
    command.set_defaults(call=_export)

    command = commands.add_parser("evaluate", help="score an exported folder; prints JSON")
    command.add_argument("--folder", type=_existing, required=True)
    command.add_argument("--count", type=int, default=200)
    command.add_argument("--frames", type=int, nargs="+", default=list(REPORT_LENGTHS))
    command.add_argument("--steps", type=int, default=NUM_STEPS)
    command.add_argument("--guidance", type=float, default=GUIDANCE_HIGH)
    command.add_argument("--guidance-2", type=float, default=GUIDANCE_LOW)
    command.add_argument("--sheets", type=Path, help="folder for contact sheets")
    command.set_defaults(call=_evaluate)

    command = commands.add_parser("captions", help="the held-out captions as JSON lines")
    command.add_argument("--count", type=int, default=200)
    command.set_defaults(call=_captions)

    command = commands.add_parser("score-clips", help="score finished MP4 files; prints JSON")
    command.add_argument("--manifest", type=_existing, required=True)
    command.set_defaults(call=_score_clips)

    command = commands.add_parser(
        "score-public", help="the gate: score files that a stack delivers"
    )
    command.add_argument("--count", type=int, default=200)
    command.add_argument("--folder", type=Path, required=True, help="where the clips are left")
    command.add_argument("--model", type=_existing, default=SHIPPED, help="the shipped one")
    command.set_defaults(call=_score_public)
    return parser


def main() -> None:
    """Parse the command line and run one command."""
    arguments = _parser().parse_args()
    prepare_process(arguments.threads)
    arguments.call(arguments)


if __name__ == "__main__":
    main()
