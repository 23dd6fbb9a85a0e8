"""`python -m tests.faults`: play every drill in its long form, print what was seen as Markdown."""

import argparse
import os
import platform
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from tests.faults.catalogue import DRILLS, Drill
from tests.faults.shared import Services
from tests.faults.verdict import Verdict


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--report", type=Path, help="write the table here as well")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies jobs, kills, seconds")
    parser.add_argument("--only", default="", help="numbers of faults, as in 1,4,18")
    parser.add_argument("--keep", type=Path, help="keep logs, files and histories in this folder")
    parser.add_argument("--short", action="store_true", help="the short form, as in CI")
    given = parser.parse_args(arguments)
    numbers = {int(number) for number in given.only.split(",") if number}
    chosen = [
        drill
        for drill in DRILLS
        if (not numbers or drill.number in numbers) and (not given.short or drill.short)
    ]
    with ExitStack() as stack:
        services = Services(stack=stack, kept=given.keep)
        results = list(_play(chosen, services, is_short=given.short, scale=given.scale))
    report = table(results)
    print(report)
    if given.report:
        given.report.parent.mkdir(parents=True, exist_ok=True)
        given.report.write_text(report)
    return int(any(verdict.wrong for _, verdict, _ in results))


def _play(
    drills: Iterable[Drill], services: Services, *, is_short: bool, scale: float
) -> Iterator[tuple[Drill, Verdict, float]]:
    for drill in drills:
        print(f"{drill.number:3} {drill.name} ...", end=" ", file=sys.stderr, flush=True)
        began = time.monotonic()
        try:
            verdict = drill.play(services, is_short=is_short, scale=scale)
        except Exception as error:  # noqa: BLE001  the other drills are played all the same
            traceback.print_exc()
            verdict = Verdict(done="broke off", wrong=[f"{type(error).__name__}: {error}"[:300]])
        seconds = time.monotonic() - began
        word = "ok" if not verdict.wrong else f"WRONG {verdict.wrong[:5]}"
        print(f"{seconds:.0f} s {word}\n{row_of(drill, verdict)}", file=sys.stderr, flush=True)
        yield drill, verdict, seconds


def table(results: list[tuple[Drill, Verdict, float]]) -> str:
    total = sum(seconds for _, _, seconds in results)
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {machine}, {len(results)} drills, {total / 60:.1f} min.",
        "",
        "| # | Fault | Done | Seen | Held |",
        "|---|---|---|---|---|",
    ]
    lines += [row_of(drill, verdict) for drill, verdict, _ in results]
    return "\n".join([*lines, ""])


def row_of(drill: Drill, verdict: Verdict) -> str:
    seen = "; ".join(verdict.seen).replace("|", "/")
    held = "no: " + "; ".join(verdict.wrong[:3]) if verdict.wrong else "yes"
    return f"| {drill.number} | {drill.name} | {verdict.done} | {seen} | {held} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
