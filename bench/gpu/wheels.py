"""Collects the wheels that a machine without a network lacks: `python -m bench.gpu.wheels`.

The machine is taken to have PyTorch with CUDA, and what usually comes beside it; `--also` adds
what it lacks (`transformers`, `accelerate`, ...). Versions are those of requirements.lock.
"""

import argparse
import subprocess
import sys
from pathlib import Path

_LOCK = Path(__file__).parents[2] / "requirements.lock"
_LACKING = ("diffusers", "ftfy", "importlib_metadata", "structlog", "wcwidth", "zipp")
_PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "manylinux1")
_LIMIT_MIB = 64


def main(arguments: list[str]) -> int:
    options = _parse(arguments)
    pins = _pins(_LOCK.read_text("utf-8"), (*_LACKING, *options.also))
    options.folder.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
        "--implementation", "cp", "--python-version", options.python, "--dest", options.folder,
        *(f"--platform={name}_{options.machine}" for name in _PLATFORMS), *pins,
    ]  # fmt: skip
    if code := subprocess.run(command, check=False).returncode:
        return code
    size_bytes = sum(file.stat().st_size for file in options.folder.glob("*.whl"))
    print(f"{len(pins)} wheels, {size_bytes / 2**20:.1f} MiB, in {options.folder}")
    if size_bytes > _LIMIT_MIB * 2**20:
        print(f"more than {_LIMIT_MIB} MiB", file=sys.stderr)
        return 1
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.wheels", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default="3.12", help="of that machine")
    parser.add_argument("--machine", default="x86_64", help="what `uname -m` says there")
    parser.add_argument("--also", nargs="*", default=[], help="further packages of the lock file")
    return parser.parse_args(arguments)


def _pins(lock: str, names: tuple[str, ...]) -> list[str]:
    """Return `name==version` of each of *names*.

    Raises:
        LookupError: The lock file has no such package.
    """
    found = {line.partition("==")[0].lower().replace("-", "_"): line for line in lock.split()}
    missing = [name for name in names if name.lower().replace("-", "_") not in found]
    if missing:
        raise LookupError(f"requirements.lock has no {', '.join(missing)}")
    return [found[name.lower().replace("-", "_")] for name in names]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
