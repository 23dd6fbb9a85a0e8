"""Submit and status throughput of the API beside a floor and a ceiling.

`python -m bench.server`: the API on SQLite, and with `--postgres URL` on a database of its own
there too, with Redis as broker. One run, one machine, same client and number of connections for
all. They take turns, and ratios are medians over the rounds, since a lone absolute number says more
about the machine than about the program.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "bench" / "reference"
AUTHORIZATION = {"Authorization": "Bearer vm_bench"}
CLIPS = [
    {
        "prompt": f"a red ball bounces on a blue floor {number}",
        "resolution": "480p",
        "duration": 3.0,
    }
    for number in range(20_000)
]
"""Different ones: identical ones would be answered as one."""
Round = dict[tuple[str, str], dict[str, Any]]
TARGETS = ("vidmill", "naive", "bare")
SHARED = "vidmill_pg"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def running(command: list[str], port: int, **environment: str) -> Iterator[None]:
    """Run *command* until the block ends; it is up when *port* answers."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 30
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command} did not come up")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(10)


def _answers(port: int) -> bool:
    with socket.socket() as sock:
        sock.settimeout(0.2)
        return sock.connect_ex(("127.0.0.1", port)) == 0


def start_all(stack: ExitStack, given: argparse.Namespace) -> dict[str, int]:
    """Start the servers and Redis; return their ports by name."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vidmill-bench-")))
    ports = {name: free_port() for name in (*TARGETS, "redis")}
    redis = shutil.which("redis-server")
    if redis is None:
        raise SystemExit("redis-server is not installed; the floor needs it")
    quiet = ["--save", "", "--appendonly", "no", "--dir", str(folder), "--loglevel", "warning"]
    stack.enter_context(running([redis, "--port", str(ports["redis"]), *quiet], ports["redis"]))
    for name, module in (("naive", "naive_celery"), ("bare", "bare")):
        command = [sys.executable, "-m", "uvicorn", f"{module}:app", "--app-dir", str(REFERENCE)]
        command += ["--port", str(ports[name]), "--no-access-log", "--log-level", "warning"]
        url = f"redis://127.0.0.1:{ports['redis']}/0"
        stack.enter_context(running(command, ports[name], REDIS_URL=url))
    command = [sys.executable, str(REFERENCE / "vidmill_api.py"), str(folder / "data")]
    stack.enter_context(running([*command, str(ports["vidmill"])], ports["vidmill"]))
    if given.postgres:
        ports[SHARED] = free_port()
        database = stack.enter_context(database_on(given.postgres))
        broker = f"redis://127.0.0.1:{ports['redis']}/1"
        command = [sys.executable, str(REFERENCE / "vidmill_api.py"), str(folder / "shared")]
        command += [str(ports[SHARED]), database, broker]
        stack.enter_context(running(command, ports[SHARED]))
    return ports


@contextmanager
def database_on(server: str) -> Iterator[str]:
    """Make an empty database on the PostgreSQL at *server* until the block ends."""
    name = f"vidmill_bench_{os.getpid()}"
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name}")
    try:
        yield f"{server.rpartition('/')[0]}/{name}"
    finally:
        with psycopg.connect(server, autocommit=True) as conn:
            conn.execute(f"DROP DATABASE {name} WITH (FORCE)")


def measure(port: int, connections: int, seconds: float, requests: list[Any]) -> dict[str, Any]:
    """Load the server at *port* from a process of its own."""
    command = [sys.executable, "-m", "bench.load", str(port), str(connections), str(seconds)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        input=json.dumps({"requests": requests}),
        text=True,
        check=True,
        stdout=subprocess.PIPE,
    )
    report: dict[str, Any] = json.loads(done.stdout)
    if set(report["statuses"]) - {"200", "202"}:
        raise RuntimeError(f"answers other than success: {report['statuses']}")
    return report


def run_round(ports: dict[str, int], order: list[str], given: argparse.Namespace) -> Round:
    """Measure each target once, in *order*; return reports by (operation, target)."""
    found: Round = {}
    for name in order:
        submit = [["POST", "/v1/t2v/generate", AUTHORIZATION, json.dumps(clip)] for clip in CLIPS]
        report = measure(ports[name], given.connections, given.seconds, submit)
        ids = [json.loads(body)["task_id"] for body in report["bodies"]]
        found["submit", name] = report
        poll = [["GET", f"/v1/t2v/status?task_id={task_id}", AUTHORIZATION, ""] for task_id in ids]
        found["status", name] = measure(ports[name], given.connections, given.seconds, poll)
    return found


def rotated(names: list[str], turn: int) -> list[str]:
    first = turn % len(names)
    return [*names[first:], *names[:first]]


def summarise(rounds: list[Round]) -> list[dict[str, Any]]:
    """Return medians over the rounds, and ratios to the floor, by operation and target."""
    lines = []
    for operation in ("submit", "status"):
        for name in (name for operation_, name in rounds[0] if operation_ == operation):
            reports = [found[operation, name] for found in rounds]
            floors = [found[operation, "naive"]["per_s"] for found in rounds]
            pairs = zip(reports, floors, strict=True)
            ratios = [report["per_s"] / floor for report, floor in pairs]
            line = {"operation": operation, "server": name, "x_naive": statistics.median(ratios)}
            for key in ("per_s", "p50_ms", "p99_ms"):
                line[key] = statistics.median(report[key] for report in reports)
            lines.append(line)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--postgres", default="", help="URL of a server, its database included.")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with ExitStack() as stack:
        ports = start_all(stack, given)
        names = [name for name in ports if name != "redis"]
        rounds = [run_round(ports, rotated(names, turn), given) for turn in range(given.rounds)]
    lines = summarise(rounds)
    if given.json:
        print(json.dumps(lines, indent=1))
        return
    print(f"{'':8}{'server':10}{'req/s':>8}{'p50 ms':>9}{'p99 ms':>9}{'x naive':>9}")
    for line in lines:
        print(
            f"{line['operation']:8}{line['server']:10}{line['per_s']:8.0f}{line['p50_ms']:9.1f}"
            f"{line['p99_ms']:9.1f}{line['x_naive']:9.2f}"
        )


if __name__ == "__main__":
    main()
