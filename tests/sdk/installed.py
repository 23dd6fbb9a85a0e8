"""Where the versions of other people's SDKs are that the dialects are tried with.

The newest of each is a dependency of the tests; `make sdks` puts the older ones below `.venv/sdk`.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

SDKS = Path(__file__).parents[2] / ".venv" / "sdk"


def folder_of(package: str, version: str) -> Path:
    """Return the folder to put on the path for *package* in *version*; skip if it is not there."""
    if metadata.version(package) == version:
        return Path(str(metadata.distribution(package).locate_file("")))
    folder = SDKS / f"{package}-{version}"
    if not folder.is_dir():
        pytest.skip(f"{package} {version} is not installed; run `make sdks`")
    return folder


class Player:
    """An interpreter that holds one version of an SDK and does what it is told.

    What it plays is the script `<package>_player.py`.
    """

    def __init__(self, package: str, version: str) -> None:
        path = os.environ | {"PYTHONPATH": str(folder_of(package, version))}
        script = Path(__file__).with_name(f"{package}_player.py")
        pipe = subprocess.PIPE
        command = [sys.executable, "-W", "ignore", str(script)]
        self._process = subprocess.Popen(command, env=path, stdin=pipe, stdout=pipe, text=True)

    def obey(self, command: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        self._process.communicate(timeout=10)
