"""`make bench`: run every measurement one after the other and print what each printed.

Nothing is asserted and nothing is kept: copy figures into docs/benchmarks.md with their date.
"""

import os
import platform
import subprocess
import sys
import time

BENCHES = ("server", "guarded", "latency", "claim", "duty", "finishing")
"""Modules of this package. `gpu` is apart: it needs a device and the real weights."""


def main(names: list[str]) -> int:
    today, python = time.strftime("%Y-%m-%d"), platform.python_version()
    print(f"{today}, {os.cpu_count()} cores, Python {python}")
    failed = []
    for name in names or BENCHES:
        print(f"\n== {name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"bench.{name}"], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"\nno figures from: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
