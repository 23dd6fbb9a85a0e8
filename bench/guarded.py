"""What rate limits and idempotency keys cost, in throughput.

`python -m bench.guarded`: one server on SQLite, rates counted in Redis. The same requests come with
the key of a plan without limits, of one that limits every rate, and with an `Idempotency-Key` too.
They take turns; ratios are medians over the rounds.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.server import CLIPS, REFERENCE, free_port, measure, rotated, running

KINDS = ("plain", "limited", "guarded")
KEYS = {"plain": "vm_bench", "limited": "vm_bench_limited", "guarded": "vm_bench_limited"}


def start(stack: ExitStack) -> int:
    """Start Redis and the API; return the API's port."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vidmill-bench-")))
    redis, redis_port, port = shutil.which("redis-server"), free_port(), free_port()
    if redis is None:
        raise SystemExit("redis-server is not installed")
    quiet = ["--save", "", "--appendonly", "no", "--dir", str(folder), "--loglevel", "warning"]
    stack.enter_context(running([redis, "--port", str(redis_port), *quiet], redis_port))
    command = [sys.executable, str(REFERENCE / "vidmill_api.py"), str(folder / "data"), str(port)]
    command += ["", "", f"redis://127.0.0.1:{redis_port}/0"]
    stack.enter_context(running(command, port))
    return port


def requests_of(kind: str, turn: int) -> list[Any]:
    """Return submits of *kind*; no name of one is used again in a later *turn*."""
    key = {"Authorization": f"Bearer {KEYS[kind]}"}
    found = []
    for number, clip in enumerate(CLIPS):
        headers = {**key, "Idempotency-Key": f"{turn}-{number}"} if kind == "guarded" else key
        body = json.dumps({**clip, "prompt": f"{clip['prompt']} {kind} {turn}"})
        found.append(["POST", "/v1/t2v/generate", headers, body])
    return found


def run_round(port: int, turn: int, given: argparse.Namespace) -> dict[tuple[str, str], Any]:
    found: dict[tuple[str, str], Any] = {}
    for kind in rotated(list(KINDS), turn):
        submits = requests_of(kind, turn)
        report = measure(port, given.connections, given.seconds, submits)
        found["submit", kind] = report["per_s"]
        ids = [json.loads(body)["task_id"] for body in report["bodies"]]
        key = {"Authorization": f"Bearer {KEYS[kind]}"}
        polls = [["GET", f"/v1/t2v/status?task_id={task_id}", key, ""] for task_id in ids]
        report = measure(port, given.connections, given.seconds, polls)
        found["status", kind] = report["per_s"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--connections", type=int, default=32)
    given = parser.parse_args()
    with ExitStack() as stack:
        port = start(stack)
        rounds = [run_round(port, turn, given) for turn in range(given.rounds)]
    print(f"{'':8}{'':10}{'req/s':>8}{'x plain':>9}")
    for operation in ("submit", "status"):
        for kind in KINDS:
            per_s = statistics.median(found[operation, kind] for found in rounds)
            ratios = [found[operation, kind] / found[operation, "plain"] for found in rounds]
            print(f"{operation:8}{kind:10}{per_s:8.0f}{statistics.median(ratios):9.2f}")


if __name__ == "__main__":
    main()
