"""Share of time the render child is at work while the queue is full: `python -m bench.duty`.

The tiny model renders faster than a CPU encodes at quality settings, so the fastest settings are
used: what is measured is how long the device waits for the supervisor, not for x264.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.e2e.stacks import ROLES, Stack

GPU_PHASES = ("encoding_text", "denoising", "decoding")
ENV = {
    "VIDMILL_ENCODER_PRESET": "ultrafast",
    "VIDMILL_INTERPOLATION": "blend",
    "VIDMILL_LEASE_S": "30",
    "VIDMILL_HEARTBEAT_S": "5",
    "VIDMILL_POLL_S": "2",
}


def rendered_lines(log: Path) -> list[dict[str, Any]]:
    """Return the supervisor's line about each rendered clip, oldest first."""
    lines = (line for line in log.read_text().splitlines() if '"job_rendered"' in line)
    return [json.loads(line) for line in lines]


def peak_rss_mb(pid: int) -> float:
    """Return the most memory a process ever held (VmHWM, proc(5)), shared frames included."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = [line for line in status if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--duration", type=float, default=3.0, help="seconds of each clip")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="vidmill-duty-") as folder:
        data = Path(folder) / "data"
        stack = Stack(data, ENV)
        with stack:
            stack.wait_ready()
            tasks = [stack.submit(duration=given.duration) for _ in range(given.clips)]
            for task in tasks:
                stack.wait_over(task, timeout_s=600)
            peaks = {role: peak_rss_mb(stack.pid_of(role) or 0) for role in ("main", *ROLES)}
            report(rendered_lines(data.with_name("data.log")), peaks)
            stack.stop()


def report(clips: list[dict[str, Any]], peaks: dict[str, float]) -> None:
    busy = [sum(clip.get(phase, 0.0) for phase in GPU_PHASES) for clip in clips]
    gaps = [clip["waited_s"] for clip in clips[1:]]  # before the first there was no work
    duty = sum(busy[1:]) / (sum(busy[1:]) + sum(gaps))
    ordered = sorted(gaps)
    print(f"clips {len(clips)}, seconds a clip p50 {statistics.median(busy):.2f}")
    print(f"render duty with a full queue: {duty:.1%}")
    print(
        f"gap between clips, ms: p50 {1000 * statistics.median(gaps):.1f},"
        f" p99 {1000 * ordered[int(0.99 * (len(ordered) - 1))]:.1f}, max {1000 * ordered[-1]:.1f}"
    )
    for role, megabytes in peaks.items():
        print(f"peak memory of {role}: {megabytes:.0f} MB")


if __name__ == "__main__":
    main(sys.argv[1:])
